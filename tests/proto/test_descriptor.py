"""The contract may grow, never change: every released field keeps its number, type and label."""

from pathlib import Path

from google.protobuf import descriptor_pb2
from triax_proto.v1 import device_pb2, event_pb2, frame_pb2

RELEASED = Path(__file__).with_name("released.binpb")


def current():
    files = descriptor_pb2.FileDescriptorSet()
    for module in (frame_pb2, device_pb2, event_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    return files


def declared(files):
    """Each field and enum value by its full name."""
    out = {}

    def message(prefix, item):
        for field in item.field:
            out[f"{prefix}.{item.name}.{field.name}"] = (
                field.number,
                field.type,
                field.label,
                field.proto3_optional,
                field.type_name,
            )
        for nested in item.nested_type:
            message(f"{prefix}.{item.name}", nested)
        for kind in item.enum_type:
            enum(f"{prefix}.{item.name}", kind)

    def enum(prefix, item):
        for value in item.value:
            out[f"{prefix}.{item.name}.{value.name}"] = (value.number,)

    for file in files.file:
        for item in file.message_type:
            message(file.package, item)
        for item in file.enum_type:
            enum(file.package, item)
    return out


def test_every_released_field_is_as_it_was():
    released = declared(descriptor_pb2.FileDescriptorSet.FromString(RELEASED.read_bytes()))
    now = declared(current())
    assert len(released) > 100
    assert {name: now.get(name) for name in released} == released


def test_a_changed_number_would_be_found():
    files = current()
    before = declared(files)
    files.file[0].message_type[0].field[3].number = 99
    assert declared(files) != before
