"""Documents packed into rows, best fit first."""
# ruff: noqa

import pyarrow.parquet as pq
import torch


def document_batches(files, start, step, tokenizer_batch_size):
    index = start
    while True:
        reader = pq.ParquetFile(files[index % len(files)])
        for group in range(reader.num_row_groups):
            texts = reader.read_row_group(group).column("text").to_pylist()
            for i in range(0, len(texts), tokenizer_batch_size):
                yield texts[i : i + tokenizer_batch_size]
        index += step


def packed_loader(tokenizer, files, B, T, rank=0, world_size=1, buffer_size=1000, tokenizer_threads=4):
    row_capacity = T + 1
    bos = tokenizer.get_bos_token_id()
    batches = document_batches(files, rank, world_size, 128)
    buffer = []
    while True:
        rows = torch.empty((B, row_capacity), dtype=torch.long)
        for r in range(B):
            position = 0
            while position < row_capacity:
                while len(buffer) < buffer_size:
                    buffer.extend(tokenizer.encode(next(batches), prepend=bos, num_threads=tokenizer_threads))
                room = row_capacity - position
                fitting = [i for i, doc in enumerate(buffer) if len(doc) <= room]
                if fitting:
                    doc = buffer.pop(max(fitting, key=lambda i: len(buffer[i])))
                else:
                    doc = buffer.pop(min(range(len(buffer)), key=lambda i: len(buffer[i])))[:room]
                rows[r, position : position + len(doc)] = torch.tensor(doc)
                position += len(doc)
        yield rows[:, :-1].cuda(non_blocking=True), rows[:, 1:].cuda(non_blocking=True)
