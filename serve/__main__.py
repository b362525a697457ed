"""`python -m serve` is `ringwatch`."""

from serve.cli import main

main()
