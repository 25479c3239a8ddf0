//! Whose signatures are believed: those of a key and, while it is being changed, of the one before.
//! Pure.

use ring::hmac;

use crate::heartbeat::wire;
use crate::secret::Secret;

/// What is signed to tell keys apart.
const TAGGED: &[u8] = b"heartbeat key";

/// The keys of a host, or of all hosts that have none of their own.
#[derive(Debug)]
pub struct Keys {
    current: Signer,
    previous: Option<Box<Signer>>,
}

#[derive(Debug)]
struct Signer {
    key: hmac::Key,
    /// What tells it from other keys, also over a restart; never 0.
    tag: u32,
}

impl Signer {
    fn new(secret: &Secret) -> Signer {
        let key = wire::key(secret);
        let signature = hmac::sign(&key, TAGGED);
        let tag =
            signature.as_ref().iter().take(4).fold(0, |tag, byte| tag << 8 | u32::from(*byte));
        Signer { key, tag: tag.max(1) }
    }
}

impl Keys {
    /// From the configuration.
    pub fn new(current: &Secret, previous: Option<&Secret>) -> Keys {
        let previous = previous.map(|previous| Box::new(Signer::new(previous)));
        Keys { current: Signer::new(current), previous }
    }

    /// The tag of the key that the JSON was signed with; none when it was neither.
    pub fn verify(&self, json: &[u8], signature: &[u8; 32]) -> Option<u32> {
        let signed = |signer: &&Signer| wire::verify(&signer.key, json, signature);
        self.signers().find(signed).map(|signer| signer.tag)
    }

    /// The key of a tag.
    pub fn key(&self, tag: u32) -> Option<&hmac::Key> {
        self.signers().find(|signer| signer.tag == tag).map(|signer| &signer.key)
    }

    fn signers(&self) -> impl Iterator<Item = &Signer> {
        std::iter::once(&self.current).chain(self.previous.as_deref())
    }

    /// Whether that is the tag of the previous key.
    pub fn is_previous(&self, tag: u32) -> bool {
        tag != self.current.tag && self.previous.as_ref().is_some_and(|old| old.tag == tag)
    }
}
