"""`python -m speechbrain_cffma` is the command `cffma`.

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.cli import main

if __name__ == "__main__":
    main()
