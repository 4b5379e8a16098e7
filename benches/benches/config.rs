//! Criterion benches of the configuration: a file of ten thousand resources must not keep anybody waiting.

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tandem_config::Config;

const COUNTS: [u32; 3] = [100, 1000, 10_000];

/// So many resources of two hosts, as an administrator's tool would write them.
fn text(resources: u32) -> String {
    let mut text = String::from(
        "common {\n net { protocol C; timeout 50; ping-int 9; verify-alg sha256; }\n\
         disk { c-max-rate 100M; al-extents 1237; }\n handlers { fence-peer /bin/true; }\n}\n",
    );
    for n in 0..resources {
        let (port, high, low) = (1024 + n % 60_000, n / 60_000, n % 250);
        let _ = write!(
            text,
            "resource r{n} {{\n    device minor {n};\n    disk /dev/vg/r{n};\n    meta-disk internal;\n\
             \x20   net {{\n        ping-timeout 20;\n    }}\n\
             \x20   on alpha {{\n        address 10.{high}.0.{low}:{port};\n    }}\n\
             \x20   on bravo {{\n        address 10.{high}.1.{low}:{port};\n    }}\n}}\n"
        );
    }
    text
}

fn config(c: &mut Criterion) {
    let mut group = c.benchmark_group("configuration");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for count in COUNTS {
        let text = text(count);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::new("parse and check", count), &text, |b, text| {
            b.iter(|| {
                Config::parse(Path::new("bench.conf"), black_box(text)).map(|config| config.resources.len())
            });
        });
        let parsed = Config::parse(Path::new("bench.conf"), &text);
        if let Ok(config) = &parsed {
            group.bench_with_input(BenchmarkId::new("dump", count), config, |b, config| {
                b.iter(|| config.dump("alpha").len());
            });
        }
        assert!(parsed.is_ok_and(|config| config.resources.len() == count as usize), "the text is good");
    }
    group.finish();
}

criterion_group!(benches, config);
criterion_main!(benches);
