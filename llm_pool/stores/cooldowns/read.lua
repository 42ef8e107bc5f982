return tell()
