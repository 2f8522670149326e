//! The certificate and key of the DTLS handshakes, kept in a file.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use leaf_secure::dtls::Identity;

/// Read the identity in this file, or make one and write it there (mode 0600).
///
/// Processes that start at the same time get the same one.
///
/// # Errors
/// What the system says, and [`ErrorKind::InvalidData`] for a file without certificate and key.
pub fn load_or_create(path: &Path) -> io::Result<Identity> {
    match fs::read(path) {
        Ok(pem) => from_pem(&pem),
        Err(error) if error.kind() == ErrorKind::NotFound => create(path),
        Err(error) => Err(error),
    }
}

/// An identity that lasts as long as the process.
///
/// # Errors
/// What OpenSSL says.
pub fn generate() -> io::Result<Identity> {
    Identity::generate().map_err(io::Error::other)
}

fn from_pem(pem: &[u8]) -> io::Result<Identity> {
    Identity::from_pem(pem).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

fn create(path: &Path) -> io::Result<Identity> {
    let identity = generate()?;
    let pem = identity.to_pem().map_err(io::Error::other)?;
    let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = path.with_file_name(name);
    let written = write(&draft, &pem).and_then(|()| {
        // A link never replaces: the first of several processes wins, with a complete file.
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => from_pem(&fs::read(path)?),
            result => result.map(|()| identity),
        }
    });
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => written,
    }
}

fn write(path: &Path, pem: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(pem)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_second_start_has_the_same_identity() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.pem");
        let first = load_or_create(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert_eq!(
            load_or_create(&path).unwrap().fingerprint(),
            first.fingerprint()
        );
    }

    #[test]
    fn of_two_that_create_it_the_first_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.pem");
        let first = create(&path).unwrap();
        assert_eq!(create(&path).unwrap().fingerprint(), first.fingerprint());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn a_file_without_a_key_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.pem");
        fs::write(&path, "something").unwrap();
        assert_eq!(
            load_or_create(&path).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
        assert_eq!(fs::read(&path).unwrap(), b"something");
        let nowhere = directory.path().join("no/identity.pem");
        assert_eq!(
            load_or_create(&nowhere).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
