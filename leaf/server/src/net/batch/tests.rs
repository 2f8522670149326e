use std::time::Instant;

use super::super::lab::{in_namespace, ip, processor_time};
use super::super::receive::Receiver;
use super::super::socket::bind_alone;
use super::*;

fn socket(address: &str) -> UdpSocket {
    bind_alone(address.parse().unwrap()).unwrap()
}

fn batch(address: &str, segmentation: bool) -> Batch {
    Batch::with_segmentation(Arc::new(socket(address)), segmentation)
}

fn push(batch: &mut Batch, to: SocketAddr, bytes: &[u8]) {
    batch.push(to, |buffer| {
        buffer[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    });
}

fn received(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let mut receiver = Receiver::single();
    while receiver
        .receive(socket, |_, bytes| datagrams.push(bytes.to_vec()))
        .unwrap()
    {}
    datagrams
}

/// Datagram number `n`, which tells itself from the others.
fn datagram(n: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (n * 31 + at) as u8).collect()
}

#[test]
fn the_kernel_has_segmentation() {
    assert!(Batch::new(Arc::new(socket("127.0.0.1:0"))).segmentation());
}

#[test]
fn with_and_without_segmentation_the_same_datagrams_arrive() {
    let sizes = [
        1100, 1100, 1100, 400, 1100, 1, 1200, 1200, 1300, 60, 60, 60, 60, 1500,
    ];
    for address in ["127.0.0.1:0", "[::1]:0"] {
        for segmentation in [false, true] {
            let receiver = socket(address);
            let to = receiver.local_addr().unwrap();
            let mut batch = batch(address, segmentation);
            let sent: Vec<_> = (0..100)
                .map(|n| datagram(n, sizes[n % sizes.len()]))
                .collect();
            for bytes in &sent {
                push(&mut batch, to, bytes);
            }
            batch.flush();
            assert_eq!(received(&receiver), sent, "{address} {segmentation}");
            let bytes = sent.iter().map(|bytes| bytes.len() as u64).sum();
            let counters = batch.counters();
            assert_eq!(
                (counters.datagrams, counters.bytes, counters.calls),
                (100, bytes, 1)
            );
        }
    }
}

#[test]
fn datagrams_of_two_destinations_alternate() {
    for segmentation in [false, true] {
        let receivers = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
        let mut batch = batch("127.0.0.1:0", segmentation);
        for n in 0..50 {
            for receiver in &receivers {
                push(
                    &mut batch,
                    receiver.local_addr().unwrap(),
                    &datagram(n, 1000),
                );
            }
        }
        batch.flush();
        let expected: Vec<_> = (0..50).map(|n| datagram(n, 1000)).collect();
        assert_eq!(
            receivers.map(|receiver| received(&receiver)),
            [expected.clone(), expected]
        );
    }
}

#[test]
fn equal_datagrams_to_one_address_become_messages_of_64() {
    let receiver = socket("127.0.0.1:0");
    let to = receiver.local_addr().unwrap();
    let mut batch = batch("127.0.0.1:0", true);
    for n in 0..130 {
        push(&mut batch, to, &datagram(n, 500));
    }
    assert_eq!(
        batch
            .messages
            .iter()
            .map(|message| message.count)
            .collect::<Vec<_>>(),
        [64, 64, 2]
    );
    batch.flush();
    assert_eq!(received(&receiver).len(), 130);
    for n in 0..130 {
        push(&mut batch, to, &datagram(n, 1200));
    }
    let lengths: Vec<_> = batch
        .messages
        .iter()
        .map(|message| message.length)
        .collect();
    assert_eq!(lengths, [54 * 1200, 54 * 1200, 22 * 1200]);
    batch.flush();
    assert_eq!(received(&receiver).len(), 130);
}

#[test]
fn a_full_batch_leaves_by_itself() {
    let receiver = socket("127.0.0.1:0");
    let to = receiver.local_addr().unwrap();
    for (segmentation, length) in [(true, MAX_DATAGRAM), (false, 10)] {
        let mut batch = batch("127.0.0.1:0", segmentation);
        let mut count = 0;
        for n in 0..1000 {
            push(&mut batch, to, &datagram(n, length));
            if n % 20 == 0 {
                count += received(&receiver).len();
            }
        }
        assert!(count > 0);
        batch.flush();
        assert_eq!(batch.counters().datagrams, 1000);
        assert_eq!(count + received(&receiver).len(), 1000);
    }
}

#[test]
fn one_bad_address_does_not_stop_the_others() {
    // Port 0 is refused with EINVAL, an address of the other family with EAFNOSUPPORT.
    let bad = ["127.0.0.1:0", "[::1]:9"].map(|address| address.parse().unwrap());
    for segmentation in [false, true] {
        for repeat in [1, 3] {
            let receivers = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
            let mut batch = batch("127.0.0.1:0", segmentation);
            for bad in bad {
                for receiver in &receivers {
                    for n in 0..repeat {
                        push(
                            &mut batch,
                            receiver.local_addr().unwrap(),
                            &datagram(n, 100),
                        );
                    }
                    for n in 0..repeat {
                        push(&mut batch, bad, &datagram(n, 100));
                    }
                }
            }
            batch.flush();
            for receiver in receivers {
                assert_eq!(received(&receiver).len(), 2 * repeat);
            }
            let counters = batch.counters();
            assert_eq!(counters.datagrams, 4 * repeat as u64);
            assert_eq!(counters.unreachable, 4 * repeat as u64);
            assert_eq!(counters.dropped, 0);
            assert_eq!(batch.segmentation(), segmentation);
        }
    }
}

#[test]
fn nothing_written_is_nothing_sent() {
    let mut batch = batch("127.0.0.1:0", true);
    batch.push("127.0.0.1:9".parse().unwrap(), |_| 0);
    batch.flush();
    assert_eq!(batch.counters(), Counters::default());
}

#[test]
#[ignore = "needs CAP_SYS_ADMIN and ip"]
fn a_path_with_a_smaller_mtu_gets_single_datagrams() {
    in_namespace(|| {
        ip("link set lo mtu 1000 up");
        let receiver = socket("127.0.0.1:0");
        let to = receiver.local_addr().unwrap();
        let mut batch = batch("127.0.0.1:0", true);
        let sent: Vec<_> = (0..8)
            .map(|n| datagram(n, if n < 4 { 1200 } else { 900 }))
            .collect();
        for bytes in &sent {
            push(&mut batch, to, bytes);
        }
        batch.flush();
        assert_eq!(received(&receiver), sent);
        assert_eq!(
            (batch.counters().unsegmented, batch.counters().datagrams),
            (1, 8)
        );
        assert!(batch.segmentation());
    });
}

#[test]
#[ignore = "needs CAP_SYS_ADMIN and ip"]
fn a_socket_that_stays_full_drops_and_goes_on() {
    in_namespace(|| {
        ip("link add here type veth peer name there");
        ip("address add 192.0.2.1/24 dev here");
        ip("link set here up");
        ip("link set there up");
        let sender = socket("192.0.2.1:0");
        socket2::SockRef::from(&sender)
            .set_send_buffer_size(25_000)
            .unwrap();
        let mut batch = Batch::with_segmentation(Arc::new(sender), false);
        // Nobody answers for this address: what is sent there waits, and fills the socket's buffer.
        let to = "192.0.2.2:9".parse().unwrap();
        let start = Instant::now();
        for n in 0..200 {
            push(&mut batch, to, &datagram(n, 1000));
        }
        batch.flush();
        assert!(start.elapsed().as_millis() < 100);
        let counters = batch.counters();
        assert!(counters.dropped > 0);
        assert_eq!(counters.datagrams + counters.dropped, 200);
        ip("neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev here");
        push(&mut batch, to, b"after");
        batch.flush();
        assert_eq!(batch.counters().datagrams, counters.datagrams + 1);
    });
}

/// What a datagram of 1,100 bytes to one of 100 addresses on loopback costs, whose sockets are full.
#[test]
#[ignore = "a measurement, meant for --release --nocapture"]
fn measure_the_call_styles() {
    const ROUNDS: usize = 100;
    const REPEATS: usize = 5;
    let sinks: Vec<_> = (0..100)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    for sink in &sinks {
        socket2::SockRef::from(sink)
            .set_recv_buffer_size(1)
            .unwrap();
    }
    let addresses: Vec<_> = sinks
        .iter()
        .map(|sink| sink.local_addr().unwrap())
        .collect();
    let bytes = datagram(1, 1100);
    let single = socket("127.0.0.1:0");
    let mut plain = batch("127.0.0.1:0", false);
    let mut segmented = batch("127.0.0.1:0", true);
    for burst in [1, 4, 16] {
        let total = (ROUNDS * addresses.len() * burst) as f64;
        let run = |send: &mut dyn FnMut(SocketAddr), flush: &mut dyn FnMut()| {
            for _ in 0..ROUNDS {
                for &to in &addresses {
                    (0..burst).for_each(|_| send(to));
                }
                flush();
            }
        };
        let cost = |style: &str, work: &mut dyn FnMut()| {
            // The quickest repeat: others were disturbed.
            let nanoseconds = (0..REPEATS)
                .map(|_| {
                    let start = processor_time();
                    work();
                    (processor_time() - start).as_nanos() as f64 / total
                })
                .fold(f64::INFINITY, f64::min);
            let rate = 1e9 / nanoseconds;
            println!(
                "{burst:2} in a row, {style:17}: {nanoseconds:5.0} ns, {rate:8.0} datagrams/s"
            );
        };
        cost("sendto", &mut || {
            run(
                &mut |to| assert_eq!(single.send_to(&bytes, to).unwrap(), bytes.len()),
                &mut || (),
            );
        });
        for (style, batch) in [
            ("sendmmsg", &mut plain),
            ("sendmmsg with GSO", &mut segmented),
        ] {
            let batch = std::cell::RefCell::new(batch);
            cost(style, &mut || {
                let mut send = |to| push(&mut batch.borrow_mut(), to, &bytes);
                run(&mut send, &mut || batch.borrow_mut().flush());
            });
        }
    }
    for counters in [plain.counters(), segmented.counters()] {
        assert_eq!(
            counters.datagrams,
            (ROUNDS * REPEATS * 100 * (1 + 4 + 16)) as u64
        );
    }
}
