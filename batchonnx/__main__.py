"""`python -m batchonnx`: the command line."""

from batchonnx.cli import main

if __name__ == "__main__":
    main()
