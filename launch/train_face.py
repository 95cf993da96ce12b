"""Train the face network: `python launch/train_face.py --source fer2013.tar.xz --out FILE`."""

import argparse
import sys
from pathlib import Path

from data_pipeline.errors import UserError
from data_pipeline.features.train_denseface import FaceTraining, train_face


def main() -> None:
    """Read the command line and train; a user's mistake is one line and exit status 2."""
    parser = argparse.ArgumentParser(description="Train the DenseFace network on FER2013.")
    parser.add_argument("--source", type=Path, required=True, help="folder or tar archive")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        train_face(FaceTraining(**vars(arguments)))
    except UserError as error:
        print(f"train_face: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
