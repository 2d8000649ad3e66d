//! Reads records from bytes, on the user side. Copies out of the buffer, so alignment does not matter.

use core::mem::size_of;

use super::layout::{Clock, Close, Data, Ended, Exec, Exit, Header, Kind, Listen, Oom, Open, State};

/// A record read from the ring or from a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Bytes of a connection and the payload that was captured of them.
    Data(Data, &'a [u8]),
    /// See [`Open`].
    Open(Open),
    /// See [`Close`].
    Close(Close),
    /// See [`State`].
    State(State),
    /// See [`Ended`].
    Ended(Ended),
    /// See [`Listen`].
    Listen(Listen),
    /// See [`Exec`].
    Exec(Exec),
    /// See [`Exit`].
    Exit(Exit),
    /// See [`Oom`].
    Oom(Oom),
    /// See [`Clock`].
    Clock(Clock),
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Fewer bytes than the record's layout needs.
    Short,
    /// The length in the header is not the number of bytes given.
    Length,
    /// A kind that this version does not know.
    Kind(u32),
    /// More captured than covered, or an unknown direction.
    Field,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => f.write_str("record is shorter than its layout"),
            Self::Length => f.write_str("record length does not match its header"),
            Self::Kind(kind) => write!(f, "record kind {kind} is unknown"),
            Self::Field => f.write_str("record has a field out of range"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Little reader over native-endian fields, in layout order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        // The caller has checked the record's size, so there always is enough.
        let (head, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *head
    }
    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }
    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }
    fn i32(&mut self) -> i32 {
        i32::from_ne_bytes(self.take())
    }
    fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }
    fn u8(&mut self) -> u8 {
        u8::from_ne_bytes(self.take())
    }
    fn header(&mut self) -> Header {
        Header { kind: self.u32(), length: self.u32(), time: self.u64(), tgid: self.u32(), tid: self.u32() }
    }
}

impl<'a> Record<'a> {
    /// Reads exactly one record that fills `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are not one whole record of a known kind.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < size_of::<Header>() {
            return Err(Malformed::Short);
        }
        let mut f = Fields(bytes);
        let header = f.header();
        if header.length as usize != bytes.len() {
            return Err(Malformed::Length);
        }
        let known = [
            (Kind::Data, size_of::<Data>()),
            (Kind::Open, size_of::<Open>()),
            (Kind::Close, size_of::<Close>()),
            (Kind::State, size_of::<State>()),
            (Kind::Ended, size_of::<Ended>()),
            (Kind::Listen, size_of::<Listen>()),
            (Kind::Exec, size_of::<Exec>()),
            (Kind::Exit, size_of::<Exit>()),
            (Kind::Oom, size_of::<Oom>()),
            (Kind::Clock, size_of::<Clock>()),
        ];
        let Some((kind, size)) = known.into_iter().find(|(kind, _)| *kind as u32 == header.kind) else {
            return Err(Malformed::Kind(header.kind));
        };
        if bytes.len() < size {
            return Err(Malformed::Short);
        }
        Ok(match kind {
            Kind::Data => {
                let data = Data {
                    header,
                    connection: f.u64(),
                    position: f.u64(),
                    arrived: f.u64(),
                    length: f.u32(),
                    captured: f.u32(),
                    fd: f.i32(),
                    direction: f.u8(),
                    flags: f.u8(),
                    _pad: f.u16(),
                };
                let payload = bytes.get(size..).unwrap_or_default();
                if data.captured > data.length
                    || data.captured as usize != payload.len()
                    || data.direction > 1
                    || data.position.checked_add(u64::from(data.length)).is_none()
                {
                    return Err(Malformed::Field);
                }
                Self::Data(data, payload)
            }
            Kind::Open => Self::Open(Open {
                header,
                connection: f.u64(),
                connected: f.u64(),
                accepted: f.u64(),
                fd: f.i32(),
                family: f.u16(),
                local_port: f.u16(),
                remote_port: f.u16(),
                flags: f.u8(),
                _pad: f.take(),
                local: f.take(),
                remote: f.take(),
            }),
            Kind::Close => Self::Close(Close {
                header,
                connection: f.u64(),
                received: f.u64(),
                sent: f.u64(),
                fd: f.i32(),
                _pad: f.u32(),
            }),
            Kind::State => Self::State(State {
                header,
                connection: f.u64(),
                received: f.u64(),
                sent: f.u64(),
                old: f.u32(),
                new: f.u32(),
            }),
            Kind::Ended => {
                let ended = Ended {
                    header,
                    connection: f.u64(),
                    position: f.u64(),
                    errno: f.i32(),
                    direction: f.u8(),
                    _pad: f.take(),
                };
                if ended.direction > 1 {
                    return Err(Malformed::Field);
                }
                Self::Ended(ended)
            }
            Kind::Listen => Self::Listen(Listen { header, fd: f.i32(), _pad: f.u32(), comm: f.take() }),
            Kind::Exec => Self::Exec(Exec { header, comm: f.take() }),
            Kind::Exit => Self::Exit(Exit { header, flags: f.u32(), status: f.u32() }),
            Kind::Oom => Self::Oom(Oom { header }),
            Kind::Clock => Self::Clock(Clock { header, realtime: f.u64() }),
        })
    }

    /// The record's header.
    pub const fn header(&self) -> &Header {
        match self {
            Self::Data(Data { header, .. }, _)
            | Self::Open(Open { header, .. })
            | Self::Close(Close { header, .. })
            | Self::State(State { header, .. })
            | Self::Ended(Ended { header, .. })
            | Self::Listen(Listen { header, .. })
            | Self::Exec(Exec { header, .. })
            | Self::Exit(Exit { header, .. })
            | Self::Oom(Oom { header })
            | Self::Clock(Clock { header, .. }) => header,
        }
    }
}
