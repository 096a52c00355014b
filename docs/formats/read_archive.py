"""Prints type, id and subject of every archived event, in order of arrival:
python read_archive.py BUCKET_DIRECTORY BUS  (needs zstandard and protobuf). Follows the ledger."""
import pathlib
import sys

import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# The part of archive.proto and cloudevents.proto that this takes.
SCHEMA = """LedgerFile: 1 bytes entry, 2 bytes hash
LedgerEntry: 2 uint64 number, 3 bytes previous, 6 *Segment segments
Segment: 1 string name, 5 uint64 count
Record: 1 CloudEvent event, 4 uint32 ordinal
CloudEvent: 1 string id, 2 string source, 4 string type, 5 *Attribute attributes
Attribute: 1 string key, 2 Value value
Value: 3 string ce_string"""
file = descriptor_pb2.FileDescriptorProto(name="read_archive.proto", package="a", syntax="proto3")
for line in SCHEMA.splitlines():
    message = file.message_type.add(name=line.split(":")[0])
    for number, kind, name in map(str.split, line.split(":")[1].split(",")):
        field = message.field.add(name=name, number=int(number), label=3 if kind[0] == "*" else 1)
        if f"TYPE_{kind.upper()}" in field.Type.keys():
            field.type = field.Type.Value(f"TYPE_{kind.upper()}")
        else:
            field.type, field.type_name = field.TYPE_MESSAGE, ".a." + kind.lstrip("*")
pb = message_factory.GetMessages([file], pool=descriptor_pool.DescriptorPool())

def records(segment):
    raw = zstandard.ZstdDecompressor().stream_reader(segment, read_across_frames=True).read()
    at = 0
    while at < len(raw):
        length = shift = 0
        while raw[at] >= 0x80:
            length, shift, at = length | (raw[at] & 0x7F) << shift, shift + 7, at + 1
        length, at = length | raw[at] << shift, at + 1
        yield pb["a.Record"].FromString(raw[at : at + length])
        at += length

bucket, bus, previous, number = pathlib.Path(sys.argv[1]), sys.argv[2], bytes(32), 1
while (path := bucket / f"ledger/{bus}/{number:020}.binpb").exists():
    listed = pb["a.LedgerFile"].FromString(path.read_bytes())
    entry = pb["a.LedgerEntry"].FromString(listed.entry)
    assert (entry.number, entry.previous) == (number, previous), f"{path}: the chain is broken"
    found = [r for s in entry.segments for r in records((bucket / s.name).read_bytes())]
    assert len(found) == sum(s.count for s in entry.segments), f"{path}: records are missing"
    for event in (r.event for r in sorted(found, key=lambda r: r.ordinal)):
        subject = [a.value.ce_string for a in event.attributes if a.key == "subject"]
        print(event.type, event.id, *subject, sep="\t")
    previous, number = listed.hash, number + 1
