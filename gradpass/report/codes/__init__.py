"""The codes of diagnostics, one class each, one file a family; see `base`."""

from gradpass.report.codes.base import Code, all_codes, code_of_op, code_of_site, find, prefixes

__all__ = ["Code", "all_codes", "code_of_op", "code_of_site", "find", "prefixes"]
