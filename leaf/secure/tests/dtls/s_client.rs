//! A handshake with the program `openssl s_client`, another client than ours.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use leaf_secure::dtls::{Handshake, Identity, Progress};

/// Ends the program, whatever becomes of the test.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_client(port: u16, pem: &std::path::Path) -> Client {
    let client = Command::new("openssl")
        .args(["s_client", "-dtls1_2"])
        .args(["-connect", &format!("127.0.0.1:{port}")])
        .args(["-use_srtp", "SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM"])
        .args([
            "-keymatexport",
            "EXTRACTOR-dtls_srtp",
            "-keymatexportlen",
            "56",
        ])
        .arg("-cert")
        .arg(pem)
        .arg("-key")
        .arg(pem)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Client(client.expect("the program openssl is installed"))
}

/// Answers datagrams until the handshake is over that far.
fn serve(socket: &UdpSocket, server: &mut Handshake, done: impl Fn(&Progress) -> bool) {
    let begin = Instant::now();
    let mut buffer = [0; 2048];
    while !done(server.progress()) {
        let (length, peer) = socket.recv_from(&mut buffer).expect("a datagram in time");
        let now = begin.elapsed().as_micros().try_into().unwrap();
        server.receive(&buffer[..length], now);
        while let Some(datagram) = server.transmit() {
            socket.send_to(&datagram, peer).unwrap();
        }
    }
}

#[test]
fn s_client_exports_the_same_keys() {
    let ours = Identity::generate().unwrap();
    let theirs = Identity::generate().unwrap();
    let pem = std::env::temp_dir().join(format!("leaf-s-client-{}.pem", std::process::id()));
    std::fs::write(&pem, &*theirs.to_pem().unwrap()).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();

    let mut client = start_client(socket.local_addr().unwrap().port(), &pem);
    let mut server = Handshake::server(&ours, theirs.fingerprint().clone(), 0).unwrap();
    serve(&socket, &mut server, |progress| {
        !matches!(progress, Progress::Handshaking)
    });
    let Progress::Established(secrets) = server.progress() else {
        panic!("{:?}", server.progress());
    };
    std::fs::remove_file(&pem).unwrap();
    let (inbound, outbound) = (secrets.inbound.expose(), secrets.outbound.expose());
    let profile = secrets.profile;

    // Closing its input ends the program, which says goodbye.
    client.0.stdin.take().unwrap().write_all(b"Q\n").unwrap();
    serve(&socket, &mut server, |progress| {
        matches!(progress, Progress::Closed)
    });
    let mut output = String::new();
    let mut stdout = client.0.stdout.take().unwrap();
    stdout.read_to_string(&mut output).unwrap();

    let exported = [
        &inbound[..16],
        &outbound[..16],
        &inbound[16..],
        &outbound[16..],
    ]
    .concat();
    let hex: String = exported
        .iter()
        .map(|octet| format!("{octet:02X}"))
        .collect();
    assert!(
        output.contains(&format!("Keying material: {hex}")),
        "{output}"
    );
    assert!(
        output.contains(&format!("profile={}", profile.openssl_name())),
        "{output}"
    );
    assert_eq!(
        profile.openssl_name(),
        "SRTP_AEAD_AES_128_GCM",
        "our preference counts"
    );
}
