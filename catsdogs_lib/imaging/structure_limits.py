"""Limits on the structure of a file, which may make it costlier to decode than its size in pixels suggests."""

from catsdogs_lib.imaging import header_limits
from catsdogs_lib.imaging.header_limits import JpegStructure

MAX_JPEG_SCANS = 32
"""Each scan decodes the whole photo again; encoders write about ten."""
MAX_JPEG_SEGMENTS = 2000
"""Segments of a JPEG; depth maps take a few hundred, Photoshop's resources some dozen."""
MAX_EXIF_SEGMENTS = 4
"""Segments of a JPEG that hold EXIF; encoders write one."""
MAX_CHUNKS = 20_000
"""Chunks of a PNG, blocks before the first frame of a GIF; encoders write one for every 8 kB or more."""
MAX_PNG_COMPRESSED = 16
"""Colour profiles and compressed texts of a PNG, each of which takes up to 2 ms and 4 MB; ImageMagick writes six."""
MAX_PNG_TEXT_BYTES = 4 * 2**20
"""Texts of a PNG; image generators store up to a MB."""
MAX_RLE_PIXELS = 3_000_000
MAX_RLE_BYTES = 2 * 2**20
"""Limits of a run-length encoded BMP, which Pillow decodes in Python, at up to 0.9 s."""
MAX_TIFF_NUMBERS = 2**18
"""Numbers in the directories of a TIFF; a 16-bit palette alone has 196,608."""
MAX_TIFF_PARTS = 16_384
"""Strips or tiles of a TIFF, each of which takes up to 30 µs; a strip for each row of a 12-megapixel photo passes."""
MAX_TIFF_OVERLAP = 4
"""Bytes of all strips of a TIFF for each byte of the file: overlapping ones are decoded again and again."""
MAX_TIFF_TILE_PIXELS = 12_600_000
"""Pixels of a tile of a TIFF: as many as a whole photo may have."""


def excess(data: bytes, jpeg: JpegStructure | None) -> str | None:
    """Return the sentence about the limit that a file exceeds; None if it exceeds none.

    Parameters
    ----------
    data
        The whole file, in any format.
    jpeg
        Its structure, if it is a JPEG, parsed up to `MAX_JPEG_SEGMENTS`.
    """
    if jpeg is not None and (
        jpeg.segments > MAX_JPEG_SEGMENTS or jpeg.exif_segments > MAX_EXIF_SEGMENTS or jpeg.scans > MAX_JPEG_SCANS
    ):
        return "the JPEG is made of far too many parts; save it anew"
    png = header_limits.read_png(data, MAX_CHUNKS)
    if png is not None and (
        png.chunks > MAX_CHUNKS or png.compressed > MAX_PNG_COMPRESSED or png.text_bytes > MAX_PNG_TEXT_BYTES
    ):
        return "the PNG is made of far too many parts; save it anew"
    if header_limits.count_gif_blocks(data, MAX_CHUNKS) > MAX_CHUNKS:
        return "the GIF is made of far too many parts; save it anew"
    bmp = header_limits.read_rle_bmp(data)
    if bmp is not None and (bmp.pixels > MAX_RLE_PIXELS or bmp.encoded_bytes > MAX_RLE_BYTES):
        return "the BMP is too large for its run-length encoding; save it as PNG"
    tiff = header_limits.read_tiff(data)
    if tiff is not None and (
        tiff.numbers > MAX_TIFF_NUMBERS
        or tiff.tile_pixels > MAX_TIFF_TILE_PIXELS
        or tiff.parts > MAX_TIFF_PARTS
        or tiff.part_bytes > MAX_TIFF_OVERLAP * len(data)
    ):
        return "the TIFF is made of far too many or too large parts; save it as JPEG"
    return None
