use super::*;

fn pool() -> FramePool<HeapMemory> {
    FramePool::new(HeapMemory::new(4, 2048))
}

#[test]
fn p3_a_received_frame_goes_round_and_is_free_again() {
    let mut pool = pool();
    let index = pool.fill().expect("free");
    let slice = pool.write_as_nic(index, 256, b"headers+payload");
    let mut chunk = pool.received(slice);
    chunk.advance(8);
    assert_eq!(pool.bytes(&chunk), b"payload");
    let parked = pool.park(chunk, Owner::SendQueue);
    pool.transmit_parked(parked);
    pool.assert_conserved();
    pool.completed(parked);
    assert_eq!(pool.count(Owner::SendQueue), 1);
    pool.release_index(parked);
    pool.assert_conserved();
    assert_eq!(pool.free_count(), 4);
    assert_eq!(pool.payload_bytes_copied(), 0);
}

#[test]
fn a_frame_released_while_the_kernel_sends_it_is_freed_on_completion() {
    let mut pool = pool();
    let chunk = pool.alloc(Owner::App).expect("free");
    let parked = pool.park(chunk, Owner::SendQueue);
    pool.transmit_parked(parked);
    pool.release_index(parked);
    assert_eq!(pool.free_count(), 3);
    pool.completed(parked);
    assert_eq!(pool.free_count(), 4);
    pool.assert_conserved();
}

#[test]
fn split_keeps_the_bytes_and_counts_the_shorter_part() {
    let mut pool = pool();
    let mut chunk = pool.alloc(Owner::App).expect("free");
    pool.append(&mut chunk, b"abcdefghij");
    let tail = pool.split_off(&mut chunk, 7).expect("free");
    assert_eq!((pool.bytes(&chunk), pool.bytes(&tail)), (&b"abcdefg"[..], &b"hij"[..]));
    assert_eq!(pool.payload_bytes_copied(), 3);
    let rest = pool.split_off(&mut chunk, 2).expect("free");
    assert_eq!((pool.bytes(&chunk), pool.bytes(&rest)), (&b"ab"[..], &b"cdefg"[..]));
    assert_eq!(pool.payload_bytes_copied(), 5);
    for c in [chunk, tail, rest] {
        pool.release(c);
    }
    pool.assert_conserved();
}

#[test]
fn frames_are_used_again_before_others_are_for_the_first_time() {
    let mut pool = FramePool::new(HeapMemory::new(1024, 2048));
    let mut used = std::collections::BTreeSet::new();
    // Received, sent from where it lies, acknowledged: no longer one that was received last.
    for _ in 0..100 {
        let index = pool.fill().expect("free");
        used.insert(index);
        let slice = pool.write_as_nic(index, 256, b"echo");
        let chunk = pool.received(slice);
        let parked = pool.park(chunk, Owner::SendQueue);
        pool.transmit_parked(parked);
        pool.completed(parked);
        pool.release_index(parked);
        let chunk = pool.alloc(Owner::Control).expect("free");
        used.insert(chunk.index);
        pool.release(chunk);
    }
    assert_eq!(used.len(), 1);
}

#[test]
#[should_panic(expected = "isn't being sent")]
fn the_kernel_side_can_only_read_what_is_being_sent() {
    let pool = pool();
    pool.transmitted(FrameSlice { index: 0, offset: 0, len: 1, more: false });
}
