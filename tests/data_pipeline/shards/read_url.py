"""`python -m tests.data_pipeline.shards.read_url URL PIECE`: read a split of 'train' in a process
of its own, in pieces of so many bytes, and print a hash of all its clips.
"""

import sys
from hashlib import sha256

from data_pipeline.shards import remote
from data_pipeline.shards.place import parse_place
from data_pipeline.shards.reader import Split, open_dataset
from data_pipeline.shards.remote import RemoteSettings


def digest(split: Split) -> str:
    """Of every field of every clip."""
    found = sha256()
    for sample in range(len(split)):
        for name, value in vars(split.read(sample)).items():
            rows = value.tobytes() if hasattr(value, "tobytes") else repr(value).encode()
            found.update(name.encode() + rows)
    return found.hexdigest()


if __name__ == "__main__":
    remote.PIECE = int(sys.argv[2])
    dataset = open_dataset(parse_place(sys.argv[1]), RemoteSettings(pause_s=0.01))
    print(digest(dataset.split("train")))
