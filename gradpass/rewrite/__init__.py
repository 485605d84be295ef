"""How the graph is repaired: `fix` leads, `region` and `build` make shadows, `carrier`, `splice`, `inline` edit."""
