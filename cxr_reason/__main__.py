"""`python -m cxr_reason` is `cxr`, from an installation and from a checkout alike."""

from cxr_reason.cli import main

main(prog_name="cxr")
