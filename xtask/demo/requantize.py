"""Writes a GGUF model again, its quantized tensors as Q8_0, which more engines can compute with.

In: a GGUF file; out: another one with the same metadata.
"""

import sys
from pathlib import Path

import gguf


def main() -> int:
    source, target = map(Path, sys.argv[1:])
    reader = gguf.GGUFReader(source)
    # A run that is cut off leaves nothing that looks whole.
    unfinished = target.with_suffix(".unfinished")
    writer = gguf.GGUFWriter(unfinished, reader.get_field("general.architecture").contents())
    for name, field in reader.fields.items():
        # The writer counts for itself, and was told the architecture.
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        of = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=of)
    kind = gguf.GGMLQuantizationType.Q8_0
    for tensor in reader.tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(tensor.name, tensor.data)
        else:
            weights = gguf.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
