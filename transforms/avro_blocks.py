"""Whether an Avro container file is whole, without decoding it.

datafusion 55 takes a file that was cut short for one that ends there, and says nothing. A block's header
tells how many records it holds, so walking the headers tells what has to come out.
"""

import os
from typing import BinaryIO, Final

import fastavro
from fastavro.io.binary_decoder import BinaryDecoder

_SYNC_BYTES: Final = 16


class DamagedAvroError(ValueError):
    """Raised when a file is no Avro container, or not all of one."""


def count_avro_records(file: BinaryIO) -> int:
    """Count the records of an Avro container (specification 1.11, "Object Container Files").

    Args:
        file: seekable, at its beginning; some 40 bytes of each block are read.

    Raises:
        DamagedAvroError: the header is none, or a block is cut short or not followed by its marker.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        fastavro.reader(file)  # leaves the file behind its header, which ends with the marker
    except Exception as error:  # whatever a decoder raises on bytes that are no Avro
        raise DamagedAvroError("no Avro header") from error
    file.seek(-_SYNC_BYTES, os.SEEK_CUR)
    marker = file.read(_SYNC_BYTES)
    decoder = BinaryDecoder(file)
    records = 0
    while file.tell() < size:
        try:
            count, length = decoder.read_long(), decoder.read_long()
        except EOFError:
            raise DamagedAvroError("cut short in a block's header") from None
        if count < 0 or length < 0:
            raise DamagedAvroError("a block of a negative size")
        file.seek(length, os.SEEK_CUR)
        if file.read(_SYNC_BYTES) != marker:
            raise DamagedAvroError("a block is cut short or damaged")
        records += count
    return records
