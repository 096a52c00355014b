use super::fixture::{Fixture, START_US};
use super::*;
use annals_core::{EventBuilder, Timestamp};
use std::time::Instant;

fn rnd(x: &mut u64) -> u64 { *x ^= *x << 13; *x ^= *x >> 7; *x ^= *x << 17; *x }

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn perf_tmp() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(annals_core::system::SystemDisk);
    let bucket = Arc::new(crate::bucket::DirectoryBucket::open(disk, dir.path()).unwrap());
    let mut fixture = Fixture::on(bucket, 3000).await;
    let mut x = 88172645463325252u64;
    let n = 50_000u64; let entries = 16u64;
    for e in 0..entries {
        let sealed: Vec<_> = (0..n).map(|i| {
            let k = e * n + i;
            let a = rnd(&mut x); let b = rnd(&mut x); let c = rnd(&mut x);
            let payload = format!("{{\"order\":\"{a:016x}\",\"customer\":\"{b:08x}\",\"amount\":{},\"currency\":\"EUR\",\"note\":\"the quick brown fox {c:012x}\",\"line\":{}}}", c % 100000, k % 7);
            let ev = EventBuilder::new(["shop.v1.OrderPlaced","shop.v1.OrderPaid","mail.v1.Sent","stock.v1.Moved"][(a % 4) as usize], "/shop/orders", format!("{a:016x}-{b:016x}")).unwrap()
              .time(Timestamp::from_microsecond(START_US + k as i64 * 1000).unwrap())
              .subject(format!("order-{}", b % 100000)).unwrap()
              .attribute("producerid", "0192f0c1-2222-7000-8000-0123456789ab").unwrap()
              .attribute("producerseq", (k+1).to_string()).unwrap()
              .json(payload.as_bytes()).build().unwrap();
            (ev.bytes().clone(), START_US + k as i64)
        }).collect();
        fixture.seal(&sealed).await;
    }
    let bytes: usize = fixture.all.iter().map(|a| a.event.len()).sum();
    let total = n * entries;
    fixture.all = Vec::new();
    eprintln!("{} events, {} B each", total, bytes as u64 / total);
    for p in [1usize, 2] {
        let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
        for _ in 0..3 {
            let t = Instant::now();
            let o = ReadOptions { duplicates: true, parallelism: p, ..ReadOptions::default() };
            let mut ev = archive.select(&Selection::all(), &o).await.unwrap();
            let (mut c, mut s, mut it) = (0u64, 0usize, std::time::Duration::ZERO);
            while let Some(b) = ev.next().await.unwrap() { let t = Instant::now(); for e in b.iter() { let e = e.unwrap(); c += 1; s += e.header.id.len() + e.header.data.bytes().len(); } it += t.elapsed(); }
            let d = t.elapsed();
            eprintln!("select p={p}: {c} {s} {d:?} {:.2} M/s; iterate {:.0} ns/event", c as f64 / d.as_secs_f64() / 1e6, it.as_nanos() as f64 / c as f64);
        }
    }
    let t = Instant::now();
    let (_, p) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    let d = t.elapsed();
    eprintln!("index: {p:?} {d:?} {:.2} M/s", total as f64 / d.as_secs_f64() / 1e6);
    let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    let t = Instant::now();
    let c = archive.count(&Selection::all()).await.unwrap();
    eprintln!("count {c} {:?}", t.elapsed());
    let t = Instant::now();
    let r = crate::verify::verify(fixture.bucket.clone(), "main", &crate::verify::VerifyOptions::default()).await.unwrap();
    eprintln!("verify {} {:?}", r.records, t.elapsed());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    eprintln!("load {load}");
}
