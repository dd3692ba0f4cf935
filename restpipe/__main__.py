"""`python -m restpipe` is `restpipe`."""

from restpipe.cli import main

main()
