"""How the graph is repaired: `plan` decides, `region` and `build` let shadows travel, `splice` and `inline` edit, `fix` leads."""
