"""Reports: recordings read (of Ebbtide, PyTorch, RMM), figures computed, and told as text, JSON, a page.

One way through: `_reading` makes a `_model.Recording` of any file; `_figures` computes from it; `_console`,
`_tables`, `_json_form`, `_perfetto`, `_page` and `_out_of_memory` tell. A view never looks into a file.
"""
