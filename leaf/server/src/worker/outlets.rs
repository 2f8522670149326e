//! Where the packets of publishers leave: one plain UDP socket for each kind of address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::net::batch::{Batch, Counters};
use crate::net::socket::bind_to_send;

/// The sockets of a worker, made when they are needed first.
#[derive(Default)]
pub struct Outlets {
    v4: Option<Batch>,
    v6: Option<Batch>,
}

impl Outlets {
    /// Make the socket for an address, if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&mut self, to: SocketAddr) -> io::Result<()> {
        let place = if to.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        };
        if place.is_none() {
            *place = Some(Batch::new(Arc::new(bind_to_send(to.is_ipv4())?)));
        }
        Ok(())
    }

    /// The batch for an address, if it was opened.
    pub fn to(&mut self, to: SocketAddr) -> Option<&mut Batch> {
        match to {
            SocketAddr::V4(_) => self.v4.as_mut(),
            SocketAddr::V6(_) => self.v6.as_mut(),
        }
    }

    /// Send everything that waits.
    pub fn flush(&mut self) {
        for batch in [&mut self.v4, &mut self.v6].into_iter().flatten() {
            batch.flush();
        }
    }

    /// The counters of all of them.
    pub fn counters(&self) -> impl Iterator<Item = Counters> {
        [&self.v4, &self.v6]
            .into_iter()
            .flatten()
            .map(Batch::counters)
    }
}
