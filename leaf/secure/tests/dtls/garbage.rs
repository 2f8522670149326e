//! Handshakes that are sent anything at any stage.

use crate::network::pair;
use leaf_secure::dtls::{Handshake, Progress};
use proptest::prelude::*;
use proptest::sample::Index;

/// What comes besides the datagrams of the handshake itself.
#[derive(Clone, Debug)]
enum Intrusion {
    Bytes(Vec<u8>),
    /// A record header of DTLS 1.2 before any bytes: type, epoch, number, bytes.
    Record(u8, u16, u16, Vec<u8>),
    /// A real datagram with an octet changed.
    Changed(Index, Index, u8),
    /// A part of a real datagram.
    Cut(Index, Index),
}

fn intrusion() -> impl Strategy<Value = Intrusion> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        bytes().prop_map(Intrusion::Bytes),
        (20u8..26, 0u16..3, any::<u16>(), bytes())
            .prop_map(|(kind, epoch, number, bytes)| Intrusion::Record(kind, epoch, number, bytes)),
        (any::<Index>(), any::<Index>(), 1u8..)
            .prop_map(|(datagram, octet, bits)| Intrusion::Changed(datagram, octet, bits)),
        (any::<Index>(), any::<Index>()).prop_map(|(datagram, end)| Intrusion::Cut(datagram, end)),
    ]
}

impl Intrusion {
    /// Its octets, given the datagrams that went over the network so far.
    fn octets(&self, seen: &[Vec<u8>]) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Record(kind, epoch, number, bytes) => [
                &[*kind, 0xFE, 0xFD][..],
                &epoch.to_be_bytes(),
                &u64::from(*number).to_be_bytes()[2..],
                &(bytes.len() as u16).to_be_bytes(),
                bytes,
            ]
            .concat(),
            Self::Changed(datagram, octet, bits) => {
                let mut changed = datagram.get(seen).clone();
                let place = octet.index(changed.len());
                changed[place] ^= bits;
                changed
            }
            Self::Cut(datagram, end) => {
                let whole = datagram.get(seen);
                whole[..end.index(whole.len())].to_vec()
            }
        }
    }
}

/// Carries all datagrams of both sides, with an intrusion before each of them, and gives them, too.
fn run(intrusions: &[Intrusion]) -> (Handshake, Handshake, Vec<Vec<u8>>) {
    let (mut client, mut server) = pair();
    let mut seen = Vec::new();
    let mut intrusions = intrusions.iter();
    for _ in 0..6 {
        for client_sends in [true, false] {
            let (from, to) = match client_sends {
                true => (&mut client, &mut server),
                false => (&mut server, &mut client),
            };
            while let Some(datagram) = from.transmit() {
                seen.push(datagram.clone());
                if let Some(intrusion) = intrusions.next() {
                    to.receive(&intrusion.octets(&seen), 0);
                }
                to.receive(&datagram, 0);
            }
        }
    }
    (client, server, seen)
}

fn all_goes_well(handshake: &Handshake) -> bool {
    matches!(handshake.progress(), Progress::Established(_))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// An intruder may prevent a handshake, as its beginning is not encrypted. He gets no keys.
    #[test]
    fn intrusions(intrusions in prop::collection::vec(intrusion(), 0..16)) {
        let (client, server, _) = run(&intrusions);
        if let (Progress::Established(ours), Progress::Established(theirs)) =
            (client.progress(), server.progress())
        {
            prop_assert_eq!(&ours.outbound, &theirs.inbound);
            prop_assert_eq!(&ours.inbound, &theirs.outbound);
        }
    }

    /// What is no DTLS at all changes nothing.
    #[test]
    fn other_protocols(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 16)) {
        let packets: Vec<_> = packets
            .into_iter()
            .map(Intrusion::Bytes)
            .collect();
        let (client, server, _) = run(&packets);
        prop_assert!(all_goes_well(&client), "{:?}", client.progress());
        prop_assert!(all_goes_well(&server), "{:?}", server.progress());
    }

    /// After the keys are there, nobody who lacks them can end the connection.
    #[test]
    fn established_ones_stay(intrusions in prop::collection::vec(intrusion(), 1..16)) {
        let (mut client, mut server, seen) = run(&[]);
        for datagram in &seen {
            client.receive(datagram, 0);
            server.receive(datagram, 0);
        }
        for intrusion in &intrusions {
            client.receive(&intrusion.octets(&seen), 0);
            server.receive(&intrusion.octets(&seen), 0);
        }
        prop_assert!(all_goes_well(&client), "{:?}", client.progress());
        prop_assert!(all_goes_well(&server), "{:?}", server.progress());
    }
}
