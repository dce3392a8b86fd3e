"""What a step costs, as a ratio to torch SGD: `python benchmarks/run.py --help`."""

from stepcost.command import main

if __name__ == "__main__":
    main()
