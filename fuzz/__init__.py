"""What reads bytes from outside, under fire: `fuzz(data)` of each module raises where a promise is broken."""

from pathlib import Path

#: One module each, with a folder of seeds in `corpus/`.
TARGETS = ("frames", "handshake", "json_commands", "msgpack_commands", "envelope", "tokens")

CORPUS = Path(__file__).with_name("corpus")
