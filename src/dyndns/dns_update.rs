//! DNS messages for one name: a query for its addresses, and the update that replaces them
//! (RFC 2136), both signed (TSIG, RFC 8945). Pure.

use std::net::IpAddr;
use std::str::FromStr;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message_builder::AdditionalBuilder;
use domain::base::{Message, MessageBuilder, Name, Record, ToName, Ttl, UnknownRecordData};
use domain::rdata::tsig::Time48;
use domain::rdata::{A, Aaaa};
use domain::tsig::{Algorithm, ClientTransaction, Key, KeyName, ValidationError};

use super::method::UpdateError;
use super::names::RecordFamily;
use crate::clock::Wall;

/// The new addresses of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneUpdate<'a> {
    /// The zone, without the trailing dot.
    pub zone: &'a str,
    /// The name in it, likewise.
    pub name: &'a str,
    /// How long resolvers may cache them, in seconds.
    pub ttl: u32,
    /// One address of each family whose records are replaced.
    pub addresses: &'a [IpAddr],
}

/// What a zone has about a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneAnswer {
    /// Its addresses of one family, each with its TTL in seconds.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Whether the name is an alias: a server silently ignores an address that is added beside it
    /// (RFC 2136, 3.4.2.2).
    pub alias: bool,
}

/// A signed message, with the state that verifies its answer.
#[derive(Debug)]
pub struct SignedRequest {
    /// The message, without the length that precedes it over TCP.
    pub bytes: Vec<u8>,
    id: u16,
    transaction: ClientTransaction<Key>,
}

/// A TSIG key, from its name and its octets.
///
/// # Errors
/// What is wrong with the name.
pub fn key(algorithm: Algorithm, name: &str, octets: &[u8]) -> Result<Key, String> {
    let name = KeyName::from_str(name)
        .map_err(|why| format!("\"{name}\" cannot be the name of a key: {why}"))?;
    Key::new(algorithm, octets, name, None, None).map_err(|why| why.to_string())
}

/// A query for the addresses of one family.
///
/// # Errors
/// When it is no valid name.
pub fn query(
    name: &str,
    family: RecordFamily,
    key: &Key,
    id: u16,
    now: Wall,
) -> Result<SignedRequest, UpdateError> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    let mut question = builder.question();
    question.push((parse_name(name)?, rtype(family))).map_err(internal)?;
    sign(question.additional(), key, id, now)
}

/// An update: all records of each family are removed and one is added, whatever was there
/// (RFC 2136, 2.5.2 and 2.5.1).
///
/// # Errors
/// When a name is not valid.
pub fn update(
    update: &ZoneUpdate,
    key: &Key,
    id: u16,
    now: Wall,
) -> Result<SignedRequest, UpdateError> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_opcode(Opcode::UPDATE);
    let mut zone = builder.question();
    zone.push((parse_name(update.zone)?, Rtype::SOA)).map_err(internal)?;
    // Prerequisites are in the answer section, updates in the authority section.
    let mut updates = zone.answer().authority();
    let (name, ttl) = (parse_name(update.name)?, Ttl::from_secs(update.ttl));
    for address in update.addresses {
        let kind = rtype(RecordFamily::of(*address));
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

fn parse_name(name: &str) -> Result<Name<Vec<u8>>, UpdateError> {
    Name::from_str(name).map_err(|why| UpdateError::Refused(format!("{name} is no name: {why}")))
}

fn rtype(family: RecordFamily) -> Rtype {
    match family {
        RecordFamily::V4 => Rtype::A,
        RecordFamily::V6 => Rtype::AAAA,
    }
}

/// An error that cannot occur: such a message is always short enough.
fn internal(why: impl std::fmt::Display) -> UpdateError {
    UpdateError::Refused(format!("the message cannot be made: {why}"))
}

fn sign(
    mut message: AdditionalBuilder<Vec<u8>>,
    key: &Key,
    id: u16,
    now: Wall,
) -> Result<SignedRequest, UpdateError> {
    let transaction =
        ClientTransaction::request(key.clone(), &mut message, time(now)).map_err(internal)?;
    Ok(SignedRequest { bytes: message.finish(), id, transaction })
}

fn time(now: Wall) -> Time48 {
    Time48::from_u64(u64::try_from(now.0 / 1000).unwrap_or(0))
}

impl SignedRequest {
    /// Verifies that the bytes are the signed answer to this request. Gives an answer whose code is
    /// NOERROR or NXDOMAIN.
    ///
    /// # Errors
    /// Why the server refuses the request, or the answer cannot be trusted.
    fn verified(&self, bytes: Vec<u8>, now: Wall) -> Result<Message<Vec<u8>>, UpdateError> {
        let mut answer = Message::from_octets(bytes)
            .map_err(|_| UpdateError::Unreachable("what it answers is no DNS message".into()))?;
        if answer.header().id() != self.id || !answer.header().qr() {
            return Err(UpdateError::Unreachable("what it answers was not asked for".into()));
        }
        let code = answer.header().rcode();
        let signed = self.transaction.answer(&mut answer, time(now));
        match (signed, code) {
            (Ok(()), Rcode::NOERROR | Rcode::NXDOMAIN) => Ok(answer),
            (Err(ValidationError::ServerUnsigned), Rcode::NOERROR | Rcode::NXDOMAIN) => {
                Err(UpdateError::Refused("its answer is not signed: it does not know TSIG".into()))
            }
            (Ok(()) | Err(ValidationError::ServerUnsigned), code) => Err(classify_rcode(code)),
            // Retried, since a machine that has just booted may set its clock any moment.
            (Err(ValidationError::ServerBadTime { .. } | ValidationError::BadTime), _) => {
                let why = "it answers BADTIME: its clock and ours differ by more than 5 min";
                Err(UpdateError::Unreachable(why.into()))
            }
            (Err(why), code) => {
                Err(UpdateError::Refused(describe_tsig_error(&why, code, self.transaction.key())))
            }
        }
    }

    /// Checks that the update was made.
    ///
    /// # Errors
    /// Why it was not.
    pub fn check_update(&self, bytes: Vec<u8>, now: Wall) -> Result<(), UpdateError> {
        match self.verified(bytes, now)?.header().rcode() {
            Rcode::NOERROR => Ok(()),
            code => Err(classify_rcode(code)),
        }
    }

    /// Parses the answer to a query.
    ///
    /// # Errors
    /// Why there is no such answer.
    pub fn zone_answer(
        &self,
        name: &str,
        bytes: Vec<u8>,
        now: Wall,
    ) -> Result<ZoneAnswer, UpdateError> {
        let answer = self.verified(bytes, now)?;
        let broken = |_| UpdateError::Unreachable("its answer is damaged".into());
        let name = parse_name(name)?;
        let mut said = ZoneAnswer::default();
        for record in answer.answer().map_err(broken)? {
            let record = record.map_err(broken)?;
            // The addresses behind an alias belong to another name.
            if !record.owner().name_eq(&name) {
                continue;
            }
            let ttl = record.ttl().as_secs();
            if let Ok(Some(found)) = record.to_record::<A>() {
                said.addresses.push((IpAddr::V4(found.data().addr()), ttl));
            } else if let Ok(Some(found)) = record.to_record::<Aaaa>() {
                said.addresses.push((IpAddr::V6(found.data().addr()), ttl));
            }
            said.alias |= record.rtype() == Rtype::CNAME;
        }
        Ok(said)
    }
}

/// The error that a response code stands for (RFC 2136, 2.2 and RFC 8945, 5.2).
fn classify_rcode(code: Rcode) -> UpdateError {
    let why = match code {
        Rcode::SERVFAIL => return UpdateError::Unreachable("it answers SERVFAIL".into()),
        Rcode::REFUSED => "it answers REFUSED: the key may not change this name",
        Rcode::NOTAUTH => "it answers NOTAUTH: it does not keep this zone, or not with this key",
        Rcode::NOTZONE => "it answers NOTZONE: the name is not in the zone",
        Rcode::NOTIMP => "it answers NOTIMP: it takes no updates",
        Rcode::FORMERR => "it answers FORMERR: it does not understand the update",
        other => return UpdateError::Refused(format!("it answers {other}")),
    };
    UpdateError::Refused(why.into())
}

fn describe_tsig_error(why: &ValidationError, code: Rcode, key: &Key) -> String {
    let name = key.name();
    match why {
        ValidationError::ServerBadKey => {
            format!("it answers BADKEY: it has no key {name} of this algorithm")
        }
        ValidationError::ServerBadSig => {
            format!("it answers BADSIG: its key {name} is another one")
        }
        other => format!("its answer ({code}) is not signed as it should be: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use domain::base::message_builder::AnswerBuilder;
    use domain::base::record::ComposeRecord;
    use domain::rdata::Cname;
    use domain::tsig::ServerTransaction;
    use proptest::prelude::*;

    use super::*;

    const NOW: Wall = Wall(1_795_291_928_000);
    const NAME: &str = "web1.example.com";

    fn our_key() -> Key {
        key(Algorithm::Sha256, "hbd", b"0123456789abcdef").unwrap()
    }

    fn asked() -> SignedRequest {
        query(NAME, RecordFamily::V4, &our_key(), 7, NOW).unwrap()
    }

    /// A server's answer: of this code, with what `fill` puts in, signed by its own key.
    fn answer(
        request: &SignedRequest,
        server: &Key,
        code: Rcode,
        fill: impl FnOnce(&mut AnswerBuilder<Vec<u8>>),
    ) -> Vec<u8> {
        let mut message = Message::from_octets(request.bytes.clone()).unwrap();
        let plain = message.clone();
        let outcome = ServerTransaction::request(&server, &mut message, time(NOW));
        match outcome {
            Ok(Some(transaction)) => {
                let mut answer = MessageBuilder::new_vec().start_answer(&message, code).unwrap();
                fill(&mut answer);
                let mut additional = answer.additional();
                transaction.answer(&mut additional, time(NOW)).unwrap();
                additional.finish()
            }
            Ok(None) => panic!("the request is not signed"),
            Err(why) => {
                let builder = MessageBuilder::new_vec();
                why.build_message(&plain, builder).unwrap().finish()
            }
        }
    }

    fn unsigned(request: &SignedRequest, code: Rcode) -> Vec<u8> {
        let message = Message::from_octets(request.bytes.clone()).unwrap();
        MessageBuilder::new_vec().start_answer(&message, code).unwrap().finish()
    }

    fn push(answer: &mut AnswerBuilder<Vec<u8>>, record: impl ComposeRecord) {
        answer.push(record).unwrap();
    }

    #[test]
    fn what_the_zone_says_is_read() {
        let request = asked();
        let name: Name<Vec<u8>> = NAME.parse().unwrap();
        let other: Name<Vec<u8>> = "other.example.com".parse().unwrap();
        let bytes = answer(&request, &our_key(), Rcode::NOERROR, |answer| {
            push(answer, (&name, Class::IN, Ttl::from_secs(60), A::from_octets(1, 1, 1, 1)));
            push(answer, (&other, Class::IN, Ttl::from_secs(60), A::from_octets(8, 8, 8, 8)));
        });
        let said = request.zone_answer(NAME, bytes, NOW).unwrap();
        assert_eq!(said.addresses, [("1.1.1.1".parse().unwrap(), 60)]);
        assert!(!said.alias);
        let bytes = answer(&request, &our_key(), Rcode::NOERROR, |answer| {
            push(answer, (&name, Class::IN, Ttl::from_secs(60), Cname::new(other.clone())));
        });
        assert!(request.zone_answer(NAME, bytes, NOW).unwrap().alias);
        let bytes = answer(&request, &our_key(), Rcode::NXDOMAIN, |_| {});
        assert_eq!(request.zone_answer(NAME, bytes, NOW), Ok(ZoneAnswer::default()));
    }

    #[test]
    fn every_way_to_refuse_has_its_words_and_its_consequence() {
        let request = asked();
        for (code, words) in [
            (Rcode::REFUSED, "REFUSED"),
            (Rcode::NOTAUTH, "NOTAUTH"),
            (Rcode::NOTZONE, "NOTZONE"),
            (Rcode::NOTIMP, "NOTIMP"),
            (Rcode::FORMERR, "FORMERR"),
            (Rcode::YXDOMAIN, "YXDOMAIN"),
            (Rcode::NXDOMAIN, "NXDOMAIN"),
        ] {
            let signed = request.check_update(answer(&request, &our_key(), code, |_| {}), NOW);
            assert!(
                matches!(&signed, Err(UpdateError::Refused(why)) if why.contains(words)),
                "{signed:?}"
            );
        }
        let signed = answer(&request, &our_key(), Rcode::SERVFAIL, |_| {});
        assert!(matches!(request.check_update(signed, NOW), Err(UpdateError::Unreachable(_))));
        let plain = request.check_update(unsigned(&request, Rcode::NOERROR), NOW);
        assert!(matches!(&plain, Err(UpdateError::Refused(why)) if why.contains("not signed")));
        let plain = request.check_update(unsigned(&request, Rcode::SERVFAIL), NOW);
        assert!(matches!(plain, Err(UpdateError::Unreachable(_))));
    }

    #[test]
    fn a_key_that_the_server_does_not_have_is_told_by_what_it_says() {
        let request = asked();
        for server in [
            key(Algorithm::Sha256, "abc", b"0123456789abcdef"),
            key(Algorithm::Sha512, "hbd", b"0123456789abcdef"),
        ] {
            let answer = answer(&request, &server.unwrap(), Rcode::NOERROR, |_| {});
            let refused = request.check_update(answer, NOW);
            let told = matches!(&refused, Err(UpdateError::Refused(why)) if why.contains("BADKEY"));
            assert!(told, "{refused:?}");
        }
        // A clock that is an hour late.
        let late = query(NAME, RecordFamily::V4, &our_key(), 7, Wall(NOW.0 - 3_600_000)).unwrap();
        let refused = late.check_update(answer(&late, &our_key(), Rcode::NOERROR, |_| {}), NOW);
        assert!(
            matches!(&refused, Err(UpdateError::Unreachable(why)) if why.contains("BADTIME")),
            "{refused:?}"
        );
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        let request = asked();
        let other = query(NAME, RecordFamily::V4, &our_key(), 8, NOW).unwrap();
        let strange = answer(&other, &our_key(), Rcode::NOERROR, |_| {});
        assert!(matches!(request.check_update(strange, NOW), Err(UpdateError::Unreachable(_))));
        assert!(matches!(
            request.check_update(request.bytes.clone(), NOW),
            Err(UpdateError::Unreachable(_))
        ));
        assert!(matches!(
            request.check_update(vec![1, 2, 3], NOW),
            Err(UpdateError::Unreachable(_))
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn a_damaged_answer_never_panics_and_is_never_taken_for_a_good_one(
            at in 0..300_usize, byte: u8, cut in 0..300_usize, junk: Vec<u8>,
        ) {
            let request = asked();
            let name: Name<Vec<u8>> = NAME.parse().unwrap();
            let good = answer(&request, &our_key(), Rcode::NOERROR, |answer| {
                push(answer, (&name, Class::IN, Ttl::from_secs(60), A::from_octets(1, 1, 1, 1)));
            });
            let mut bad = good.clone();
            let at = at % bad.len();
            bad[at] = byte;
            // Class and TTL of the signature itself are not covered by it, and change nothing.
            if let Ok(said) = request.zone_answer(NAME, bad, NOW) {
                prop_assert_eq!(Ok(said), request.zone_answer(NAME, good.clone(), NOW));
            }
            let cut = good[..cut % good.len()].to_vec();
            prop_assert!(request.zone_answer(NAME, cut, NOW).is_err());
            prop_assert!(request.check_update(junk, NOW).is_err());
        }
    }
}
