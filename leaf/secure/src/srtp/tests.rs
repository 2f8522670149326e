//! Both directions together: the vectors of RFC 7714, replays, and what is no packet.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::keys::SessionKeys;
use super::*;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SALT: &str = "517569642070726f2071756f";

/// "Gallia est omnis divisa in partes tres".
const RTP: &str = "8040f17b8041f8d35501a0b2\
                   47616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573";
const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                    deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
const RTCP_INDEX: u32 = 0x5d4;

/// RFC 7714 gives session keys, not master keys.
fn session(profile: Profile) -> SessionKeys {
    SessionKeys {
        encryption: Zeroizing::new(unhex(KEY)[..profile.key_len()].to_vec()),
        authentication: Zeroizing::new(Vec::new()),
        salt: Zeroizing::new(unhex(SALT)),
    }
}

fn pair(profile: Profile) -> (Outbound, Inbound) {
    let bytes: Vec<u8> = (0..).take(profile.key_len() + profile.salt_len()).collect();
    let master = MasterKey::from_bytes(profile, &bytes).unwrap();
    let (outbound, inbound) = (
        Outbound::new(profile, &master),
        Inbound::new(profile, &master),
    );
    (outbound.unwrap(), inbound.unwrap())
}

fn profile() -> impl Strategy<Value = Profile> {
    prop::sample::select(&Profile::PREFERENCE[..])
}

fn header(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut header = vec![0x80, 96];
    header.extend(sequence.to_be_bytes());
    header.extend([0; 4]);
    header.extend(ssrc.to_be_bytes());
    header
}

fn protect(outbound: &Outbound, index: u64, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; payload.len() + 64];
    let length = outbound.protect_rtp(index, &header(index as u16, ssrc), payload, &mut packet);
    packet.truncate(length.unwrap());
    packet
}

fn check_vectors(profile: Profile, srtp: &str, srtcp: &str) {
    let keys = session(profile);
    let mut outbound = Outbound::with(profile, &keys, &keys).unwrap();
    let mut inbound = Inbound::with(profile, &keys, &keys).unwrap();
    let (rtp, rtcp, mut out) = (unhex(RTP), unhex(RTCP), Vec::new());

    let mut packet = [0; 128];
    let length = outbound.protect_rtp(0xf17b, &rtp[..12], &rtp[12..], &mut packet);
    assert_eq!(packet[..length.unwrap()], unhex(srtp));
    assert_eq!(inbound.unprotect_rtp(&unhex(srtp), &mut out), Ok(0xf17b));
    assert_eq!(out, rtp);

    outbound.skip_rtcp_to(RTCP_INDEX).unwrap();
    outbound.protect_rtcp(&rtcp, &mut out).unwrap();
    assert_eq!(out, unhex(srtcp));
    inbound.unprotect_rtcp(&unhex(srtcp), &mut out).unwrap();
    assert_eq!(out, rtcp);
}

/// RFC 7714, sections 16.1 and 17.1.
#[test]
fn aead_aes_128_gcm() {
    check_vectors(
        Profile::AeadAes128Gcm,
        "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f\
         42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1\
         730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
    );
}

/// RFC 7714, sections 16.2 and 17.2.
#[test]
fn aead_aes_256_gcm() {
    check_vectors(
        Profile::AeadAes256Gcm,
        "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3\
         b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1\
         110555be8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
    );
}

/// RFC 7714, section 17.3: authenticated only, which is not agreed on.
#[test]
fn unencrypted_rtcp_is_refused() {
    let keys = session(Profile::AeadAes128Gcm);
    let mut inbound = Inbound::with(Profile::AeadAes128Gcm, &keys, &keys).unwrap();
    let packet = unhex(&format!("{RTCP}841dd9683dd78ec92ae58790125f62b3000005d4"));
    let refused = inbound.unprotect_rtcp(&packet, &mut Vec::new());
    assert_eq!(refused, Err(SrtpError::Malformed));
}

#[test]
fn across_the_rollover() {
    for profile in Profile::PREFERENCE {
        let (outbound, mut inbound) = pair(profile);
        let mut out = Vec::new();
        for index in 65_500..65_600 {
            let packet = protect(&outbound, index, 7, b"picture");
            assert_eq!(inbound.unprotect_rtp(&packet, &mut out), Ok(index));
            assert_eq!(out[12..], *b"picture");
            let again = inbound.unprotect_rtp(&packet, &mut out);
            assert_eq!(again, Err(SrtpError::Replayed));
        }
    }
}

#[test]
fn rtcp_comes_once() {
    for profile in Profile::PREFERENCE {
        let (mut outbound, mut inbound) = pair(profile);
        let (mut packet, mut out) = (Vec::new(), Vec::new());
        outbound.protect_rtcp(&unhex(RTCP), &mut packet).unwrap();
        assert_eq!(packet.len(), unhex(RTCP).len() + profile.rtcp_overhead());
        inbound.unprotect_rtcp(&packet, &mut out).unwrap();
        assert_eq!(out, unhex(RTCP));
        let again = inbound.unprotect_rtcp(&packet, &mut out);
        assert_eq!(again, Err(SrtpError::Replayed));
    }
}

#[test]
fn sources_are_bounded() {
    let (outbound, mut inbound) = pair(Profile::AeadAes128Gcm);
    let mut out = Vec::new();
    for ssrc in 0..MAX_SSRCS as u32 {
        let packet = protect(&outbound, 1, ssrc, b"picture");
        assert_eq!(inbound.unprotect_rtp(&packet, &mut out), Ok(1));
    }
    let packet = protect(&outbound, 1, 1_000, b"picture");
    let refused = inbound.unprotect_rtp(&packet, &mut out);
    assert_eq!(refused, Err(SrtpError::TooManySources));
    let known = protect(&outbound, 2, 0, b"picture");
    assert_eq!(inbound.unprotect_rtp(&known, &mut out), Ok(2));
}

/// A wrong tag must leave no trace: neither an SSRC nor an index taken.
#[test]
fn strangers_take_no_place() {
    let (outbound, mut inbound) = pair(Profile::Aes128CmSha1_80);
    let mut out = Vec::new();
    for ssrc in 0..100 {
        let mut packet = protect(&outbound, 1, ssrc, b"picture");
        *packet.last_mut().unwrap() ^= 1;
        let refused = inbound.unprotect_rtp(&packet, &mut out);
        assert_eq!(refused, Err(SrtpError::Authentication));
    }
    let packet = protect(&outbound, 1, 99, b"picture");
    assert_eq!(inbound.unprotect_rtp(&packet, &mut out), Ok(1));
}

#[test]
fn rtcp_indices_go_forward_and_end() {
    let (mut outbound, _) = pair(Profile::AeadAes128Gcm);
    let (rtcp, mut out) = (unhex(RTCP), Vec::new());
    assert_eq!(outbound.rtcp_index(), 0);
    outbound.skip_rtcp_to(100).unwrap();
    assert_eq!(outbound.skip_rtcp_to(99), Err(SrtpError::IndexExhausted));
    assert_eq!(
        outbound.skip_rtcp_to(MAX_RTCP_INDEX),
        Err(SrtpError::IndexExhausted)
    );
    outbound.skip_rtcp_to(MAX_RTCP_INDEX - 1).unwrap();
    outbound.protect_rtcp(&rtcp, &mut out).unwrap();
    let refused = outbound.protect_rtcp(&rtcp, &mut out);
    assert_eq!(refused, Err(SrtpError::IndexExhausted));
}

#[test]
fn no_room_and_no_header() {
    for profile in Profile::PREFERENCE {
        let (mut outbound, _) = pair(profile);
        let mut out = vec![0; 12 + 7 + profile.rtp_overhead()];
        let header = header(1, 7);
        let protect =
            |header: &[u8], out: &mut [u8]| outbound.protect_rtp(1, header, b"picture", out);
        assert_eq!(protect(&header, &mut out), Ok(out.len()));
        let short = out.len() - 1;
        assert_eq!(protect(&header, &mut out[..short]), Err(SrtpError::NoRoom));
        assert_eq!(protect(&header[..11], &mut out), Err(SrtpError::Malformed));
        let beyond = outbound.protect_rtp(1 << 48, &header, b"", &mut out);
        assert_eq!(beyond, Err(SrtpError::IndexExhausted));
        let refused = outbound.protect_rtcp(&[0x80; 7], &mut out);
        assert_eq!(refused, Err(SrtpError::Malformed));
    }
}

proptest! {
    /// Headers with CSRCs and an extension stay readable, and payloads of any length come back.
    #[test]
    fn round_trip(
        profile in profile(),
        csrcs in 0u8..16,
        extension in prop::option::of(0u16..8),
        payload in prop::collection::vec(any::<u8>(), 0..1300),
        index in 0u64..1 << 16,
    ) {
        let (outbound, mut inbound) = pair(profile);
        let mut header = header(index as u16, 7);
        header[0] |= csrcs;
        header.extend(vec![0xC5; 4 * usize::from(csrcs)]);
        if let Some(words) = extension {
            header[0] |= 0x10;
            header.extend([0xBE, 0xDE]);
            header.extend(words.to_be_bytes());
            header.extend(vec![0xEE; 4 * usize::from(words)]);
        }
        let mut packet = vec![0; header.len() + payload.len() + profile.rtp_overhead()];
        let length = outbound.protect_rtp(index, &header, &payload, &mut packet);
        prop_assert_eq!(length, Ok(packet.len()));
        prop_assert_eq!(&packet[..header.len()], &header[..]);
        let mut out = Vec::new();
        prop_assert_eq!(inbound.unprotect_rtp(&packet, &mut out), Ok(index));
        prop_assert_eq!(out, [header, payload].concat());
    }

    /// Any bit matters.
    #[test]
    fn changed_packets_are_refused(
        profile in profile(),
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
        rtcp in any::<bool>(),
    ) {
        let (mut outbound, mut inbound) = pair(profile);
        let (mut packet, mut out) = (Vec::new(), Vec::new());
        if rtcp {
            outbound.protect_rtcp(&unhex(RTCP), &mut packet).unwrap();
        } else {
            packet = protect(&outbound, 1, 7, b"picture");
        }
        let place = place.index(packet.len());
        packet[place] ^= 1 << bit;
        let opened = match rtcp {
            true => inbound.unprotect_rtcp(&packet, &mut out),
            false => inbound.unprotect_rtp(&packet, &mut out).map(|_| ()),
        };
        prop_assert!(matches!(opened, Err(SrtpError::Authentication | SrtpError::Malformed)));
    }

    #[test]
    fn any_bytes(profile in profile(), packet in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut outbound, mut inbound) = pair(profile);
        let mut out = Vec::new();
        prop_assert!(inbound.unprotect_rtp(&packet, &mut out).is_err());
        prop_assert!(inbound.unprotect_rtcp(&packet, &mut out).is_err());
        let _ = outbound.protect_rtp(0, &packet, &packet, &mut out);
        let _ = outbound.protect_rtcp(&packet, &mut out);
    }
}
