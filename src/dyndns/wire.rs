//! DNS messages for one name: the question what the zone says, and the update that changes it
//! (RFC 2136), both signed (TSIG, RFC 8945). Pure.

use std::net::IpAddr;
use std::str::FromStr;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message_builder::AdditionalBuilder;
use domain::base::{Message, MessageBuilder, Name, Record, ToName, Ttl, UnknownRecordData};
use domain::rdata::tsig::Time48;
use domain::rdata::{A, Aaaa};
use domain::tsig::{Algorithm, ClientTransaction, Key, KeyName, ValidationError};

use super::method::Bad;
use super::names::Family;
use crate::clock::Wall;

/// What is changed: the addresses of a name, and for how long others may remember them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The zone, without the trailing dot.
    pub zone: &'a str,
    /// The name in it, likewise.
    pub name: &'a str,
    /// Seconds.
    pub ttl: u32,
    /// One address of each family whose records are replaced.
    pub addresses: &'a [IpAddr],
}

/// A signed message, and what its answer is checked by.
#[derive(Debug)]
pub struct Request {
    /// As it goes over the wire, without the length in front of it.
    pub bytes: Vec<u8>,
    id: u16,
    transaction: ClientTransaction<Key>,
}

/// A key, from its name and its octets.
///
/// # Errors
/// What is wrong with the name.
pub fn key(algorithm: Algorithm, name: &str, octets: &[u8]) -> Result<Key, String> {
    let name = KeyName::from_str(name)
        .map_err(|why| format!("\"{name}\" cannot be the name of a key: {why}"))?;
    Key::new(algorithm, octets, name, None, None).map_err(|why| why.to_string())
}

/// The question what the zone says about the addresses of one family.
///
/// # Errors
/// When the name is none.
pub fn question(name: &str, family: Family, key: &Key, id: u16, now: Wall) -> Result<Request, Bad> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    let mut question = builder.question();
    question.push((parsed(name)?, rtype(family))).map_err(internal)?;
    sign(question.additional(), key, id, now)
}

/// The update: all records of each family are removed and one is added, whatever was there
/// (RFC 2136, 2.5.2 and 2.5.1).
///
/// # Errors
/// When a name is none.
pub fn update(update: &Update, key: &Key, id: u16, now: Wall) -> Result<Request, Bad> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_opcode(Opcode::UPDATE);
    let mut zone = builder.question();
    zone.push((parsed(update.zone)?, Rtype::SOA)).map_err(internal)?;
    // Prerequisites stand where answers do, updates where authorities do.
    let mut updates = zone.answer().authority();
    let (name, ttl) = (parsed(update.name)?, Ttl::from_secs(update.ttl));
    for address in update.addresses {
        let kind = rtype(Family::of(*address));
        let nothing = UnknownRecordData::from_octets(kind, []).map_err(internal)?;
        updates.push(Record::new(&name, Class::ANY, Ttl::ZERO, nothing)).map_err(internal)?;
        match address {
            IpAddr::V4(address) => updates.push((&name, Class::IN, ttl, A::new(*address))),
            IpAddr::V6(address) => updates.push((&name, Class::IN, ttl, Aaaa::new(*address))),
        }
        .map_err(internal)?;
    }
    sign(updates.additional(), key, id, now)
}

fn parsed(name: &str) -> Result<Name<Vec<u8>>, Bad> {
    Name::from_str(name).map_err(|why| Bad::Refused(format!("{name} is no name: {why}")))
}

fn rtype(family: Family) -> Rtype {
    match family {
        Family::V4 => Rtype::A,
        Family::V6 => Rtype::AAAA,
    }
}

/// Such a message is always short enough.
fn internal(why: impl std::fmt::Display) -> Bad {
    Bad::Refused(format!("the message cannot be made: {why}"))
}

fn sign(
    mut message: AdditionalBuilder<Vec<u8>>,
    key: &Key,
    id: u16,
    now: Wall,
) -> Result<Request, Bad> {
    let transaction =
        ClientTransaction::request(key.clone(), &mut message, time(now)).map_err(internal)?;
    Ok(Request { bytes: message.finish(), id, transaction })
}

fn time(now: Wall) -> Time48 {
    Time48::from_u64(u64::try_from(now.0 / 1000).unwrap_or(0))
}

impl Request {
    /// Checks that the bytes answer this request, are signed, and say that it was done. Gives the
    /// answer and its code, which is NOERROR or NXDOMAIN.
    ///
    /// # Errors
    /// What the server has against it.
    fn answered(&self, bytes: Vec<u8>, now: Wall) -> Result<Message<Vec<u8>>, Bad> {
        let mut answer = Message::from_octets(bytes)
            .map_err(|_| Bad::Unreachable("what it answers is no DNS message".into()))?;
        if answer.header().id() != self.id || !answer.header().qr() {
            return Err(Bad::Unreachable("what it answers was not asked for".into()));
        }
        let code = answer.header().rcode();
        let signed = self.transaction.answer(&mut answer, time(now));
        match (signed, code) {
            (Ok(()), Rcode::NOERROR | Rcode::NXDOMAIN) => Ok(answer),
            (Err(ValidationError::ServerUnsigned), Rcode::NOERROR | Rcode::NXDOMAIN) => {
                Err(Bad::Refused("its answer is not signed: it does not know TSIG".into()))
            }
            (Ok(()) | Err(ValidationError::ServerUnsigned), code) => Err(refusal(code)),
            (Err(why), _) => Err(Bad::Refused(unsound(&why, self.transaction.key()))),
        }
    }

    /// Whether the update was made.
    ///
    /// # Errors
    /// Why it was not.
    pub fn made(&self, bytes: Vec<u8>, now: Wall) -> Result<(), Bad> {
        match self.answered(bytes, now)?.header().rcode() {
            Rcode::NOERROR => Ok(()),
            code => Err(refusal(code)),
        }
    }

    /// What the zone says about the name: its addresses of the family, each with its TTL.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn said(&self, name: &str, bytes: Vec<u8>, now: Wall) -> Result<Vec<(IpAddr, u32)>, Bad> {
        let answer = self.answered(bytes, now)?;
        let broken = |_| Bad::Unreachable("its answer is damaged".into());
        let name = parsed(name)?;
        let mut said = Vec::new();
        for record in answer.answer().map_err(broken)? {
            let record = record.map_err(broken)?;
            // An alias stands for addresses that are not ours.
            if !record.owner().name_eq(&name) {
                continue;
            }
            let ttl = record.ttl().as_secs();
            if let Ok(Some(found)) = record.to_record::<A>() {
                said.push((IpAddr::V4(found.data().addr()), ttl));
            } else if let Ok(Some(found)) = record.to_record::<Aaaa>() {
                said.push((IpAddr::V6(found.data().addr()), ttl));
            }
        }
        Ok(said)
    }
}

/// What a response code means here (RFC 2136, 2.2 and RFC 8945, 5.2).
fn refusal(code: Rcode) -> Bad {
    let why = match code {
        Rcode::SERVFAIL => return Bad::Unreachable("it answers SERVFAIL".into()),
        Rcode::REFUSED => "it answers REFUSED: the key may not change this name",
        Rcode::NOTAUTH => "it answers NOTAUTH: it does not keep this zone, or not with this key",
        Rcode::NOTZONE => "it answers NOTZONE: the name is not in the zone",
        Rcode::NOTIMP => "it answers NOTIMP: it takes no updates",
        Rcode::FORMERR => "it answers FORMERR: it does not understand the update",
        other => return Bad::Refused(format!("it answers {other}")),
    };
    Bad::Refused(why.into())
}

fn unsound(why: &ValidationError, key: &Key) -> String {
    let name = key.name();
    match why {
        ValidationError::ServerBadKey => {
            format!("it answers BADKEY: it has no key {name} of this algorithm")
        }
        ValidationError::ServerBadSig => {
            format!("it answers BADSIG: its key {name} is another one")
        }
        ValidationError::ServerBadTime { .. } | ValidationError::BadTime => {
            "it answers BADTIME: its clock and ours differ by more than 5 min".into()
        }
        other => format!("its answer is not signed as it should be: {other}"),
    }
}
