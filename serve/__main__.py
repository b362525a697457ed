"""`python -m serve` is `ringwatch`."""

from serve.cli.main import main

main()
