//! What a publisher's packets cost of the heap: nothing, once they flow.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use leaf_core::publisher::{Publisher, Terms};
use leaf_wire::header::HeaderTemplate;

struct Counting;

thread_local! {
    /// Allocations of this thread: those that run the tests have theirs when they like.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

fn count() -> usize {
    COUNT.get()
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no counter any more.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn of_packets_and_gaps_of_a_publisher() {
    let terms = Terms {
        mid: "0".into(),
        rid: String::new(),
        clock: 90_000,
        payload_types: vec![102],
        rtx: vec![(103, 102)],
        ssrcs: vec![],
        mid_extension: Some(4),
        rid_extension: None,
        repaired_rid_extension: None,
        nack: true,
        pli: true,
        remb: true,
    };
    let mut publisher = Publisher::new(vec![terms], 42, "leaf".into(), 4000);
    let template = HeaderTemplate::new(102, 9).unwrap();
    let template = template.with_mid(4, "0").unwrap();
    let mut bytes = [7; 1200];
    let mut out = Vec::with_capacity(2048);
    // Ten seconds of a thousand packets: a gap now and then, and requests for what is in it.
    let mut pass = |packets: std::ops::Range<u64>, reports: bool| {
        for packet in packets {
            if packet % 50 == 7 {
                continue;
            }
            template.write(packet as u16, packet as u32 * 90, false, 0, &mut bytes);
            assert!(publisher.take(&bytes, packet * 1000).is_some());
            // Reports are made once a second, in a list.
            if reports || packet % 50 == 8 {
                publisher.write(packet * 1000, &mut out);
            }
        }
    };
    pass(0..200, true);
    let before = count();
    pass(200..1_000, false);
    assert_eq!(count(), before);
    pass(1_000..10_000, true);
    let reports = count() - before;
    assert!((9..=12).contains(&reports), "{reports}");
}
