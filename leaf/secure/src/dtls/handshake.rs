//! One DTLS connection: its handshake, and the alerts after it.

use std::fmt::{self, Formatter};

use openssl::ssl::{ErrorCode, Ssl, SslRef, SslStream, SslVerifyMode};
use openssl::x509::{X509StoreContextRef, X509VerifyResult};
use zeroize::Zeroizing;

use super::openssl_dtls::{alloc_buffers, free_buffers, handle_timeout, set_timer, time_left};
use super::records::are_plausible;
use super::transport::Datagrams;
use super::{Fingerprint, Identity, Micros, OpensslError};
use crate::srtp::{MasterKey, Profile};

/// The longest datagram sent, in octets. It fits every path, tunnels included.
const MTU: u32 = 1200;

/// How long a handshake may take from its beginning, even if the other side never says a word.
const DEADLINE: Micros = 30_000_000;

/// The label of RFC 5764, section 4.2.
const EXPORTER: &str = "EXTRACTOR-dtls_srtp";

/// The longest application data looked at. Nothing of it is used: there are no data channels here.
const SCRATCH: usize = 2048;

/// What a handshake yields: the keys of both directions.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// How packets are protected.
    pub profile: Profile,
    /// For the packets this side sends.
    pub outbound: MasterKey,
    /// For the packets this side receives.
    pub inbound: MasterKey,
}

/// How far a connection is.
#[derive(Clone, Debug)]
pub enum Progress {
    /// The keys are not agreed on.
    Handshaking,
    /// The other side has shown the certificate that was expected, and the keys are there.
    Established(Secrets),
    /// One of the sides has said goodbye (close_notify). The end.
    Closed,
    /// The reason why there are no keys, or no more. The end.
    Failed(String),
}

/// A DTLS connection without a socket: datagrams and the time go in, datagrams come out.
///
/// After each call that takes `now`, send all that [`transmit`](Self::transmit) gives, look at
/// [`progress`](Self::progress), and call [`handle_timeout`](Self::handle_timeout) at
/// [`timeout`](Self::timeout). OpenSSL reads the machine's clock itself to decide on a retransmission, so
/// `now` must go at the pace of a real clock; a call that comes too early does nothing.
///
/// Keep it while the connection lasts: the other side may have lost the last flight and ask for it
/// again, and says goodbye here. It takes 75 KB of OpenSSL's memory while the
/// handshake goes on and 42 KB after it.
pub struct Handshake {
    stream: SslStream<Datagrams>,
    role: Role,
    progress: Progress,
    deadline: Micros,
    timeout: Option<Micros>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

impl Handshake {
    /// Waits for the other side to begin (`a=setup:passive`). `expected` is what SDP says of its
    /// certificate.
    pub fn server(
        identity: &Identity,
        expected: Fingerprint,
        now: Micros,
    ) -> Result<Self, OpensslError> {
        Self::new(identity, expected, Role::Server, now)
    }

    /// Begins (`a=setup:active`): the first datagram is there to be sent.
    pub fn client(
        identity: &Identity,
        expected: Fingerprint,
        now: Micros,
    ) -> Result<Self, OpensslError> {
        Self::new(identity, expected, Role::Client, now)
    }

    fn new(
        identity: &Identity,
        expected: Fingerprint,
        role: Role,
        now: Micros,
    ) -> Result<Self, OpensslError> {
        let mut ssl = Ssl::new(identity.context())?;
        match role {
            Role::Client => ssl.set_connect_state(),
            Role::Server => ssl.set_accept_state(),
        }
        ssl.set_mtu(MTU)?;
        set_timer(&mut ssl);
        ssl.set_verify_callback(
            SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
            move |_, chain| is_expected(&expected, chain),
        );
        let mut handshake = Self {
            stream: SslStream::new(ssl, Datagrams::default())?,
            role,
            progress: Progress::Handshaking,
            deadline: now.saturating_add(DEADLINE),
            timeout: None,
        };
        handshake.advance(now);
        Ok(handshake)
    }

    /// Takes a datagram of the other side. What is no DTLS, or comes twice, changes nothing.
    pub fn receive(&mut self, datagram: &[u8], now: Micros) {
        if self.is_over() || !are_plausible(datagram) {
            return;
        }
        self.stream.get_mut().set_incoming(datagram);
        self.advance(now);
    }

    /// The next datagram to be sent, at most 1,200 octets.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        self.stream.get_mut().pop_outgoing()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, if at all.
    pub fn timeout(&self) -> Option<Micros> {
        self.timeout
    }

    /// Sends the present flight again if no answer came in time, and gives up after 30 s.
    pub fn handle_timeout(&mut self, now: Micros) {
        if !matches!(self.progress, Progress::Handshaking) {
            return;
        }
        if now >= self.deadline {
            return self.end(Progress::Failed("no answer within 30 s".into()));
        }
        if !handle_timeout(self.stream.ssl()) {
            return self.end(Progress::Failed("no answer to 12 retransmissions".into()));
        }
        self.set_timeout(now);
    }

    /// How far the connection is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Says goodbye (close_notify), if the handshake got so far. One datagram is there to be sent.
    pub fn close(&mut self) {
        if self.is_over() {
            return;
        }
        if matches!(self.progress, Progress::Established(_)) {
            self.send_close_notify();
        }
        self.end(Progress::Closed);
    }

    fn is_over(&self) -> bool {
        matches!(self.progress, Progress::Closed | Progress::Failed(_))
    }

    /// Goes as far as what was received allows.
    fn advance(&mut self, now: Micros) {
        if !alloc_buffers(self.stream.ssl()) {
            return self.end(Progress::Failed("out of memory".into()));
        }
        if matches!(self.progress, Progress::Handshaking) {
            self.shake_hands();
        }
        if matches!(self.progress, Progress::Established(_)) {
            self.read_alerts();
            free_buffers(self.stream.ssl());
        }
        self.set_timeout(now);
    }

    fn shake_hands(&mut self) {
        match self.stream.do_handshake() {
            Ok(()) => match secrets(self.stream.ssl(), self.role) {
                Ok(secrets) => self.progress = Progress::Established(secrets),
                Err(reason) => {
                    self.send_close_notify();
                    self.end(Progress::Failed(reason));
                }
            },
            Err(error) if error.code() == ErrorCode::WANT_READ => {}
            Err(error) => self.end(Progress::Failed(error.to_string())),
        }
    }

    /// Reads what comes after the handshake: alerts, and the other side's last flight once more, which
    /// OpenSSL answers with ours.
    fn read_alerts(&mut self) {
        let mut scratch = [0; SCRATCH];
        loop {
            match self.stream.ssl_read(&mut scratch) {
                Ok(_) => {}
                Err(error) if error.code() == ErrorCode::WANT_READ => return,
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                    self.send_close_notify();
                    return self.end(Progress::Closed);
                }
                Err(error) => return self.end(Progress::Failed(error.to_string())),
            }
        }
    }

    /// A refusal is of no interest: the connection ends all the same, and the alert is a courtesy.
    fn send_close_notify(&mut self) {
        if alloc_buffers(self.stream.ssl()) {
            let _ = self.stream.shutdown();
        }
    }

    fn end(&mut self, progress: Progress) {
        self.progress = progress;
        self.timeout = None;
        free_buffers(self.stream.ssl());
    }

    /// An established connection has no timer: its last flight goes out again when it is asked for.
    fn set_timeout(&mut self, now: Micros) {
        self.timeout = matches!(self.progress, Progress::Handshaking).then(|| {
            time_left(self.stream.ssl()).map_or(self.deadline, |left| {
                now.saturating_add(left).min(self.deadline)
            })
        });
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("progress", &self.progress)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// OpenSSL's question for each certificate of the other side's chain: the last of them, at depth 0, must
/// be the one that SDP promised, and nothing else counts (RFC 8827, section 6.5).
fn is_expected(expected: &Fingerprint, chain: &mut X509StoreContextRef) -> bool {
    if chain.error_depth() > 0 {
        return true;
    }
    let matches = chain
        .current_cert()
        .is_some_and(|certificate| expected.matches(certificate));
    if !matches {
        chain.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
    }
    matches
}

/// The master keys of both directions (RFC 5764, section 4.2): the client's key, the server's, the
/// client's salt, the server's.
fn secrets(ssl: &SslRef, role: Role) -> Result<Secrets, String> {
    let profile = ssl
        .selected_srtp_profile()
        .and_then(|selected| Profile::from_openssl_name(selected.name()))
        .ok_or("the other side has no SRTP profile of ours")?;
    let (key, salt) = (profile.key_len(), profile.salt_len());
    let mut material = Zeroizing::new(vec![0; 2 * (key + salt)]);
    ssl.export_keying_material(&mut material, EXPORTER, None)
        .map_err(|errors| errors.to_string())?;
    let (keys, salts) = material.split_at(2 * key);
    let client = MasterKey::new(&keys[..key], &salts[..salt]);
    let server = MasterKey::new(&keys[key..], &salts[salt..]);
    let (outbound, inbound) = match role {
        Role::Client => (client, server),
        Role::Server => (server, client),
    };
    Ok(Secrets {
        profile,
        outbound,
        inbound,
    })
}
