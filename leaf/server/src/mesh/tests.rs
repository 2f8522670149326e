use std::time::Duration;

use mio::Events;

use super::*;

const TOKEN: Token = Token(9);

fn mesh(workers: usize) -> (Vec<Poll>, Vec<Seat<u32>>, Vec<Post<u32>>) {
    let polls: Vec<_> = (0..workers).map(|_| Poll::new().unwrap()).collect();
    let (seats, posts) = connect(&polls, TOKEN).unwrap().into_iter().unzip();
    (polls, seats, posts)
}

/// How often a worker was woken, if at all, after a short wait.
fn wakes(poll: &mut Poll, wait: Duration) -> usize {
    let mut events = Events::with_capacity(8);
    poll.poll(&mut events, Some(wait)).unwrap();
    events.iter().filter(|event| event.token() == TOKEN).count()
}

fn packet(n: u64, bytes: &[u8]) -> Packet<'_> {
    Packet {
        stream: n,
        arrival: n * 10,
        bytes,
    }
}

#[test]
fn messages_come_in_order_and_wake_once() {
    let (mut polls, seats, posts) = mesh(1);
    for n in 0..100 {
        assert!(posts[0].send(n));
    }
    assert_eq!(wakes(&mut polls[0], Duration::from_secs(5)), 1);
    seats[0].hear();
    assert_eq!(
        seats[0].messages().collect::<Vec<_>>(),
        (0..100).collect::<Vec<_>>()
    );
    assert_eq!(wakes(&mut polls[0], Duration::ZERO), 0);
    posts[0].send(100);
    assert_eq!(wakes(&mut polls[0], Duration::from_secs(5)), 1);
}

#[test]
fn a_worker_that_ended_takes_no_messages() {
    let (_polls, seats, posts) = mesh(1);
    drop(seats);
    assert!(!posts[0].send(1));
}

#[test]
fn packets_reach_all_other_workers_after_notify() {
    let (mut polls, mut seats, _posts) = mesh(3);
    seats[1].share(packet(7, b"media"));
    assert!(
        polls
            .iter_mut()
            .all(|poll| wakes(poll, Duration::ZERO) == 0)
    );
    seats[1].notify();
    let woken: Vec<_> = polls
        .iter_mut()
        .map(|poll| wakes(poll, Duration::from_millis(50)))
        .collect();
    assert_eq!(woken, [1, 0, 1]);
    for (index, seat) in seats.iter_mut().enumerate() {
        let mut count = 0;
        seat.packets(|got| {
            assert_eq!(got, packet(7, b"media"));
            count += 1;
        });
        assert_eq!(count, usize::from(index != 1));
    }
    seats[1].notify();
    seats[0].hear();
    assert_eq!(wakes(&mut polls[0], Duration::ZERO), 0);
}

#[test]
fn a_full_queue_drops_and_counts_and_goes_on() {
    let (_polls, mut seats, _posts) = mesh(2);
    let bytes = [5; 1000];
    let fit = QUEUE / (HEADER + bytes.len());
    for n in 0..fit as u64 + 3 {
        seats[0].share(packet(n, &bytes));
    }
    assert_eq!(seats[0].dropped(), 3);
    let mut streams = Vec::new();
    seats[1].packets(|got| streams.push(got.stream));
    assert_eq!(streams, (0..fit as u64).collect::<Vec<_>>());
    seats[0].share(packet(1, &[0; MAX_PACKET + 1]));
    assert_eq!(seats[0].dropped(), 4);
    seats[0].share(packet(2, &bytes));
    seats[1].packets(|got| streams.push(got.stream));
    assert_eq!(streams.len(), fit + 1);
}

#[test]
fn packets_of_all_lengths_pass_between_threads_and_around_the_end() {
    const PACKETS: u64 = 20_000;
    let (mut polls, mut seats, _posts) = mesh(2);
    let mut reader = seats.pop().unwrap();
    let mut poll = polls.pop().unwrap();
    let mut writer = seats.pop().unwrap();
    let thread = std::thread::spawn(move || {
        let mut dropped = 0;
        for n in 0..PACKETS {
            let bytes = vec![n as u8; (n * 37 % (MAX_PACKET as u64 + 1)) as usize];
            loop {
                writer.share(packet(n, &bytes));
                writer.notify();
                if writer.dropped() == dropped {
                    break;
                }
                dropped = writer.dropped();
                std::thread::yield_now();
            }
        }
    });
    let mut next = 0;
    while next < PACKETS {
        // Every packet is followed by a wake, or this ends too early.
        assert_eq!(wakes(&mut poll, Duration::from_secs(10)), 1);
        reader.hear();
        reader.packets(|got| {
            assert_eq!((got.stream, got.arrival), (next, next * 10));
            assert_eq!(got.bytes.len() as u64, next * 37 % (MAX_PACKET as u64 + 1));
            assert!(got.bytes.iter().all(|&byte| byte == next as u8));
            next += 1;
        });
    }
    thread.join().unwrap();
}
