"""Glue: what happens between the models of an application, in plain functions on arrays.

work      what glue is given and gives back; `Glue`, `Stage`, `Port`
find      glue by name: built in, an entry point, or MODULE:NAME
passing   the default: outputs go to the inputs of the same name or type
ocr       PP-OCR: detect → turn → read; ocr_detect, ocr_read: its pre- and post-processing

Glue runs in threads of the daemon, off its event loop. It sees large tensors where they lie.
"""
