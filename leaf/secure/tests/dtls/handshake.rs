//! Handshakes of ours with each other, over a network that loses, doubles and reorders.

use std::time::Duration;

use crate::network::{Fate, Network, pair, pair_of};
use leaf_secure::dtls::{Fingerprint, Handshake, Identity, Micros, Progress, Secrets};
use leaf_secure::srtp::{Inbound, Outbound, Profile};
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};
use proptest::prelude::*;

fn secrets(handshake: &Handshake) -> &Secrets {
    match handshake.progress() {
        Progress::Established(secrets) => secrets,
        other => panic!("not established: {other:?}"),
    }
}

fn assert_same_keys(client: &Handshake, server: &Handshake) {
    let (client, server) = (secrets(client), secrets(server));
    assert_eq!(client.profile, server.profile);
    assert_eq!(client.outbound, server.inbound);
    assert_eq!(client.inbound, server.outbound);
    assert_ne!(client.inbound, client.outbound);
}

/// A certificate as GStreamer's webrtcbin makes it: RSA with 2048 bits.
fn rsa_identity() -> Identity {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let name = X509NameBuilder::new().unwrap().build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    let (begin, end) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(1));
    certificate.set_not_before(&begin.unwrap()).unwrap();
    certificate.set_not_after(&end.unwrap()).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    let mut pem = certificate.build().to_pem().unwrap();
    pem.extend(key.private_key_to_pem_pkcs8().unwrap());
    Identity::from_pem(&pem).unwrap()
}

#[test]
fn keys_agree_and_protect() {
    let (mut client, mut server) = pair();
    Network::new(Vec::new()).run(&mut client, &mut server);
    assert_same_keys(&client, &server);
    let secrets = secrets(&server);
    assert_eq!(secrets.profile, Profile::AeadAes128Gcm);

    let outbound = Outbound::new(secrets.profile, &secrets.outbound).unwrap();
    let client = self::secrets(&client);
    let mut inbound = Inbound::new(client.profile, &client.inbound).unwrap();
    let header = [0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];
    let mut packet = [0; 64];
    let length = outbound.protect_rtp(1, &header, b"picture", &mut packet);
    let mut opened = Vec::new();
    let protected = &packet[..length.unwrap()];
    inbound.unprotect_rtp(protected, &mut opened).unwrap();
    assert_eq!(opened, [&header[..], b"picture"].concat());
}

#[test]
fn rsa_in_both_roles() {
    let (ours, rsa) = (Identity::generate().unwrap(), rsa_identity());
    for (client, server) in [(&ours, &rsa), (&rsa, &ours)] {
        let (mut client, mut server) = pair_of(client, server);
        Network::new(Vec::new()).run(&mut client, &mut server);
        assert_same_keys(&client, &server);
    }
}

#[test]
fn two_processes_share_an_identity() {
    let pem = Identity::generate().unwrap().to_pem().unwrap();
    let (one, other) = (Identity::from_pem(&pem), Identity::from_pem(&pem));
    let (mut client, mut server) = pair_of(&one.unwrap(), &other.unwrap());
    Network::new(Vec::new()).run(&mut client, &mut server);
    assert_same_keys(&client, &server);
}

#[test]
fn a_wrong_fingerprint_fails_on_both_sides() {
    let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let stranger = Identity::generate().unwrap().fingerprint().clone();
    let right = |identity: &Identity| identity.fingerprint().clone();
    let cases: [(Fingerprint, Fingerprint); 2] = [
        (stranger.clone(), right(&one)),
        (right(&other), stranger.clone()),
    ];
    for (of_server, of_client) in cases {
        let mut client = Handshake::client(&one, of_server, 0).unwrap();
        let mut server = Handshake::server(&other, of_client, 0).unwrap();
        Network::new(Vec::new()).run(&mut client, &mut server);
        for side in [&client, &server] {
            let Progress::Failed(reason) = side.progress() else {
                panic!("{:?}", side.progress());
            };
            assert!(
                reason.contains("verify failed") || reason.contains("alert"),
                "{reason}"
            );
            assert_eq!(side.timeout(), None);
        }
    }
}

#[test]
fn goodbye_is_heard_and_answered() {
    for client_first in [true, false] {
        let (mut client, mut server) = pair();
        Network::new(Vec::new()).run(&mut client, &mut server);
        let (first, second) = match client_first {
            true => (&mut client, &mut server),
            false => (&mut server, &mut client),
        };
        first.close();
        assert!(matches!(first.progress(), Progress::Closed));
        let goodbye = first.transmit().unwrap();
        assert_eq!(first.transmit(), None);
        second.receive(&goodbye, 0);
        assert!(matches!(second.progress(), Progress::Closed));
        assert!(second.transmit().is_some());
        assert_eq!(second.transmit(), None);
    }
}

#[test]
fn close_before_the_keys() {
    let (mut client, mut server) = pair();
    for side in [&mut client, &mut server] {
        side.close();
        assert!(matches!(side.progress(), Progress::Closed));
        assert_eq!(side.timeout(), None);
        side.receive(b"anything", 0);
        side.handle_timeout(Micros::MAX);
        assert!(matches!(side.progress(), Progress::Closed));
    }
}

#[test]
fn silence_ends_after_30_seconds() {
    let (_, mut server) = pair();
    assert_eq!(server.timeout(), Some(30_000_000));
    server.handle_timeout(29_999_999);
    assert!(matches!(server.progress(), Progress::Handshaking));
    server.handle_timeout(30_000_000);
    assert!(matches!(server.progress(), Progress::Failed(_)));
    assert_eq!(server.timeout(), None);
}

#[test]
fn the_first_flight_goes_out_again() {
    let (mut client, _) = pair();
    let first = client.transmit().unwrap();
    let wait = client.timeout().unwrap();
    assert!((50_000..=100_000).contains(&wait), "{wait}");
    client.handle_timeout(1_000);
    assert_eq!(client.transmit(), None, "too early");
    std::thread::sleep(Duration::from_micros(wait));
    client.handle_timeout(wait);
    let again = client.transmit().unwrap();
    assert_eq!(again.len(), first.len());
    assert!(
        client.timeout().unwrap() > wait + 100_000,
        "the wait doubles"
    );
}

/// The server's last flight is lost: it goes out again when the client asks, though the server is done.
#[test]
fn the_last_flight_goes_out_again() {
    let (mut client, mut server) = pair();
    let mut network = Network::new(Vec::new());
    while !matches!(server.progress(), Progress::Established(_)) {
        network.step(&mut client, &mut server);
    }
    while server.transmit().is_some() {}
    assert!(matches!(client.progress(), Progress::Handshaking));
    network.run(&mut client, &mut server);
    assert_same_keys(&client, &server);
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Arrives),
        2 => Just(Fate::IsLost),
        1 => Just(Fate::ArrivesTwice),
        2 => Just(Fate::ComesLate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 8, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn over_a_bad_network(fates in prop::collection::vec(fate(), 12..24)) {
        let (mut client, mut server) = pair();
        // What comes after the bad times arrives, so that every handshake has an end.
        Network::new(fates).run(&mut client, &mut server);
        assert_same_keys(&client, &server);
    }
}
