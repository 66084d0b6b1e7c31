"""``python -m fullconv``, and the console script."""

from fullconv.cli import main

if __name__ == "__main__":
    main()
