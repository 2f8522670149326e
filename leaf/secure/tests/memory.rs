//! What a connection takes of the heap.

use leaf_secure::dtls::{Handshake, Identity, Progress};
use leaf_secure::srtp::{Inbound, Outbound};

const COUNT: usize = 64;

/// Octets in use on the heap.
fn in_use() -> usize {
    // SAFETY: mallinfo2 has no preconditions.
    let arena = unsafe { libc::mallinfo2() };
    arena.uordblks + arena.hblkhd
}

fn pair(identity: &Identity) -> (Handshake, Handshake) {
    let expected = identity.fingerprint();
    let client = Handshake::client(identity, expected.clone(), 0);
    let server = Handshake::server(identity, expected.clone(), 0);
    (client.unwrap(), server.unwrap())
}

fn shake_hands((client, server): &mut (Handshake, Handshake)) {
    while matches!(client.progress(), Progress::Handshaking) {
        while let Some(datagram) = client.transmit() {
            server.receive(&datagram, 0);
        }
        while let Some(datagram) = server.transmit() {
            client.receive(&datagram, 0);
        }
    }
}

fn contexts(handshake: &Handshake) -> (Outbound, Inbound) {
    let Progress::Established(secrets) = handshake.progress() else {
        panic!("{:?}", handshake.progress());
    };
    let outbound = Outbound::new(secrets.profile, &secrets.outbound);
    let inbound = Inbound::new(secrets.profile, &secrets.inbound);
    (outbound.unwrap(), inbound.unwrap())
}

/// The only test of this program: others would be measured with it.
#[test]
fn of_a_connection() {
    let identity = Identity::generate().unwrap();
    // What OpenSSL makes once for all connections.
    shake_hands(&mut pair(&identity));

    let begin = in_use();
    let mut pairs: Vec<_> = (0..COUNT).map(|_| pair(&identity)).collect();
    let fresh = (in_use() - begin) / (2 * COUNT);
    pairs.iter_mut().for_each(shake_hands);
    let established = (in_use() - begin) / (2 * COUNT);

    let begin = in_use();
    let contexts: Vec<_> = pairs.iter().map(|(client, _)| contexts(client)).collect();
    let srtp = (in_use() - begin) / contexts.len();

    println!("handshake: {fresh} octets when made, {established} when established");
    println!("SRTP, both directions: {srtp} octets");
    assert!(
        established < fresh,
        "{established} is not less than {fresh}"
    );
    assert!(established < 48 * 1024, "{established}");
    assert!(srtp < 4 * 1024, "{srtp}");
}
