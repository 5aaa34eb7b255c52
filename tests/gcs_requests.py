"""What tests of Cloud Storage send, and the paths by which its requests for content are known."""

MEDIA = "/download/"
UPLOAD = "/upload/"
CONTENT = bytes(range(251)) * 40_000  # 10 MB, so that a shift by any power of two shows
