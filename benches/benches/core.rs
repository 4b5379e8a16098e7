//! Criterion benches of the core's hot functions: what every write, every frame and every resync passes through.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tandem_core::bitmap::Bitmap;
use tandem_core::config::Protocol;
use tandem_core::io::{DiskError, Payload};
use tandem_core::metadata::{self, MetaIo, Placement, Superblock};
use tandem_core::units::{BLOCK_BYTES, ByteRange, NodeId, WriteSeq};
use tandem_core::wire::{FRAME_HEADER_BYTES, FrameHeader, Message, decode, encode};

const PAYLOADS: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
const VOLUME_BYTES: u64 = 100 << 30;

/// The checksum of a payload, computed where data enters the node.
fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("payload checksum");
    for bytes in PAYLOADS {
        let data = Bytes::from(vec![0x5a; bytes]);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &data, |b, data| {
            b.iter(|| Payload::new(black_box(data.clone())));
        });
    }
}

/// A write's frame, into a buffer that is used again.
fn frames(c: &mut Criterion) {
    let mut out = BytesMut::with_capacity(4096);
    c.bench_function("encode a write's frame", |b| {
        let message = write(4096);
        b.iter(|| {
            out.clear();
            encode(black_box(&message), &mut out);
        });
    });
    c.bench_function("encode an acknowledgement", |b| {
        let message = Message::WriteAck { seq: WriteSeq(7) };
        b.iter(|| {
            out.clear();
            encode(black_box(&message), &mut out);
        });
    });
    let mut group = c.benchmark_group("decode a write's frame");
    for bytes in PAYLOADS {
        let (header, body, payload) = received(&write(bytes));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.iter(|| {
                let header = FrameHeader::parse(black_box(&header));
                header.and_then(|header| decode(&header, &body, payload.clone()))
            });
        });
    }
}

/// Marking a write, and finding what a resync has to do next.
fn bitmap(c: &mut Criterion) {
    c.bench_function("bitmap: mark and clear a 4 KiB write", |b| {
        let mut bitmap = Bitmap::new(VOLUME_BYTES);
        let mut block = 0;
        b.iter(|| {
            block = (block + 7919) % bitmap.blocks();
            let range = ByteRange::new(block * BLOCK_BYTES, BLOCK_BYTES);
            bitmap.set_range(black_box(range));
            bitmap.clear_range(black_box(range), VOLUME_BYTES);
        });
    });
    c.bench_function("bitmap: every run of 100 GiB with one bit in 1000", |b| {
        let mut bitmap = Bitmap::new(VOLUME_BYTES);
        for block in (0..bitmap.blocks()).step_by(1000) {
            bitmap.set_range(ByteRange::new(block * BLOCK_BYTES, BLOCK_BYTES));
        }
        b.iter(|| runs(&bitmap));
    });
    c.bench_function("bitmap: every run of 100 GiB wholly out of sync", |b| {
        let mut bitmap = Bitmap::new(VOLUME_BYTES);
        bitmap.set_all();
        b.iter(|| runs(&bitmap));
    });
    c.bench_function("bitmap: merge a page of the peer's", |b| {
        let mut theirs = Bitmap::new(VOLUME_BYTES);
        theirs.set_range(ByteRange::new(0, VOLUME_BYTES / 2));
        let page = theirs.page(3);
        let empty = Bitmap::new(1 << 30);
        b.iter_batched_ref(
            || empty.clone(),
            |mine| mine.merge_page(3, black_box(&page)),
            BatchSize::SmallInput,
        );
    });
}

fn superblock(c: &mut Criterion) {
    let superblock = Superblock::fresh(42, VOLUME_BYTES, Placement::Internal, 31);
    c.bench_function("superblock: encode", |b| b.iter(|| black_box(&superblock).encode()));
}

/// What attach and handshake do with the metadata of a large disk that is in sync: under a second, and little memory.
fn large_disk(c: &mut Criterion) {
    let mut group = c.benchmark_group("16 TiB, clean");
    group.sample_size(10);
    let mut disk = CleanDisk { bytes: 16 << 40, written: Vec::new() };
    let size = disk.bytes;
    metadata::create(&mut disk, Placement::Internal, size, 1, 7).expect("the metadata fits");
    group.bench_function("read the metadata", |b| {
        b.iter(|| metadata::load(&mut disk, Placement::Internal, size, NodeId(0)).is_ok());
    });
    let metadata = metadata::load(&mut disk, Placement::Internal, size, NodeId(0)).expect("it was created");
    let bitmap = &metadata.bitmaps[0];
    group.bench_function("find what the handshake has to send, and the first block to ask for", |b| {
        b.iter(|| {
            ((0..bitmap.pages()).filter(|page| bitmap.page_has_bits(*page)).count(), bitmap.next_set(0))
        });
    });
}

/// Keeps what is not zero.
struct CleanDisk {
    bytes: u64,
    written: Vec<(u64, Vec<u8>)>,
}

impl MetaIo for CleanDisk {
    fn size_bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        buffer.fill(0);
        for (at, data) in &self.written {
            if let Some(part) = at.checked_sub(offset).and_then(|from| buffer.get_mut(from as usize..)) {
                let length = part.len().min(data.len());
                part[..length].copy_from_slice(&data[..length]);
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.written.retain(|(at, _)| *at != offset);
        if data.iter().any(|byte| *byte != 0) {
            self.written.push((offset, data.to_vec()));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Walks the bitmap as a resync does, in requests of up to 128 KiB.
fn runs(bitmap: &Bitmap) -> u64 {
    let (mut block, mut count) = (0, 0);
    while let Some(run) = bitmap.next_run(block, 32) {
        block = run.end;
        count += 1;
    }
    count
}

fn write(bytes: usize) -> Message {
    Message::Write {
        seq: WriteSeq(7),
        offset: 1 << 30,
        wants: Protocol::C,
        payload: Payload::new(Bytes::from(vec![0x5a; bytes])),
    }
}

/// The three parts of a frame as they arrive.
fn received(message: &Message) -> ([u8; FRAME_HEADER_BYTES], Vec<u8>, Bytes) {
    let mut out = BytesMut::new();
    encode(message, &mut out);
    let mut header = [0; FRAME_HEADER_BYTES];
    header.copy_from_slice(&out[..FRAME_HEADER_BYTES]);
    let payload = message.payload().map(|p| p.data.clone()).unwrap_or_default();
    (header, out[FRAME_HEADER_BYTES..].to_vec(), payload)
}

criterion_group!(benches, checksum, frames, bitmap, superblock, large_disk);
criterion_main!(benches);
