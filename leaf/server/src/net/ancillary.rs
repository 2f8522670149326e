//! The control message that tells how long the datagrams of a joined message are: `UDP_SEGMENT`
//! towards the kernel, `UDP_GRO` from it (udp(7)).

/// Room for a header, a number, and padding.
const SIZE: usize = {
    // SAFETY: computes a size from a constant and reads nothing.
    unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) as usize }
};

/// A control message's bytes, aligned as its header wants it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Control {
    bytes: [u8; SIZE],
    _align: libc::cmsghdr,
}

impl Control {
    /// Its room, in bytes.
    pub(super) const SIZE: usize = SIZE;

    /// Room with nothing in it.
    pub(super) const fn empty() -> Self {
        Self { bytes: [0; SIZE] }
    }

    /// Say that each datagram has `segment` bytes, and the last one what is left.
    pub(super) fn write_segment(&mut self, segment: u16) {
        let header = std::ptr::from_mut(self).cast::<libc::cmsghdr>();
        // SAFETY: the room is aligned for a header and holds it and a larger number behind it; the
        // number is written without regard to alignment.
        unsafe {
            (*header).cmsg_level = libc::SOL_UDP;
            (*header).cmsg_type = libc::UDP_SEGMENT;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
            libc::CMSG_DATA(header)
                .cast::<u16>()
                .write_unaligned(segment);
        }
    }

    /// How long each datagram is; None if the message is a single one. `length` is how many bytes the
    /// kernel wrote.
    pub(super) fn read_segment(&self, length: usize) -> Option<usize> {
        let header = std::ptr::from_ref(self).cast::<libc::cmsghdr>();
        // SAFETY: the room is aligned for a header and holds it and a number behind it, and all its
        // bytes are written from the beginning; any bytes are valid integers.
        let (header, segment) = unsafe {
            (
                *header,
                libc::CMSG_DATA(header)
                    .cast::<libc::c_int>()
                    .read_unaligned(),
            )
        };
        let is_segment = length >= header.cmsg_len
            // SAFETY: computes a size from a constant and reads nothing.
            && header.cmsg_len == unsafe { libc::CMSG_LEN(size_of::<libc::c_int>() as u32) } as usize
            && header.cmsg_level == libc::SOL_UDP
            && header.cmsg_type == libc::UDP_GRO;
        usize::try_from(segment)
            .ok()
            .filter(|&segment| is_segment && segment > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_is_no_segment() {
        assert_eq!(Control::empty().read_segment(0), None);
        let mut sending = Control::empty();
        sending.write_segment(1100);
        assert_eq!(sending.read_segment(Control::SIZE), None);
    }
}
