//! With what two nodes prove to each other that they are the peers of the configuration: a secret that both know.
//!
//! A proof is a code (HMAC) over who proves to whom, for which resource and which of the two streams, and over a challenge of
//! each: so none can be made without the secret, used again, or be sent back to its maker.

use std::fmt;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::digest;
use crate::units::NodeId;
use crate::wire::Stream;

/// Random bytes that no connection has had before.
pub type Challenge = [u8; 32];

/// Longest code: that of SHA-512.
pub const MAX_CODE_BYTES: usize = 64;

/// Begins what a code is made of, so that it is good for nothing else.
const LABEL: &[u8] = b"tandem peer, proof 1\0";

/// What a node proves with that it is who it says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Authentication {
    /// How codes are made.
    pub algorithm: HmacAlgorithm,
    /// What both nodes know.
    pub secret: Secret,
}

/// A secret. It is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// This secret.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The secret itself, for whoever may have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The digest that codes are made with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HmacAlgorithm {
    /// MD5.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl HmacAlgorithm {
    /// Every algorithm, by its number on the wire.
    pub const ALL: &'static [HmacAlgorithm] = &[
        HmacAlgorithm::Md5,
        HmacAlgorithm::Sha1,
        HmacAlgorithm::Sha224,
        HmacAlgorithm::Sha256,
        HmacAlgorithm::Sha384,
        HmacAlgorithm::Sha512,
    ];

    /// The word of the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            HmacAlgorithm::Md5 => "md5",
            HmacAlgorithm::Sha1 => "sha1",
            HmacAlgorithm::Sha224 => "sha224",
            HmacAlgorithm::Sha256 => "sha256",
            HmacAlgorithm::Sha384 => "sha384",
            HmacAlgorithm::Sha512 => "sha512",
        }
    }

    /// The algorithm of this name, or of the kernel's name for one implementation of it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.name() == digest::base_name(name))
    }

    /// The algorithm with this number on the wire.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    fn code(self) -> fn(&[u8], &Claim<'_>) -> Vec<u8> {
        match self {
            HmacAlgorithm::Md5 => code::<Hmac<Md5>>,
            HmacAlgorithm::Sha1 => code::<Hmac<Sha1>>,
            HmacAlgorithm::Sha224 => code::<Hmac<Sha224>>,
            HmacAlgorithm::Sha256 => code::<Hmac<Sha256>>,
            HmacAlgorithm::Sha384 => code::<Hmac<Sha384>>,
            HmacAlgorithm::Sha512 => code::<Hmac<Sha512>>,
        }
    }
}

/// What is proved.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Whose connection it is.
    pub resource: &'a str,
    /// Which of its streams.
    pub stream: Stream,
    /// Who knows the secret.
    pub prover: NodeId,
    /// To whom that is proved.
    pub verifier: NodeId,
    /// The prover's challenge.
    pub own: &'a Challenge,
    /// The verifier's, which is answered.
    pub answered: &'a Challenge,
}

impl Claim<'_> {
    /// The same, proved the other way round.
    pub fn reversed(&self) -> Self {
        Claim {
            prover: self.verifier,
            verifier: self.prover,
            own: self.answered,
            answered: self.own,
            ..*self
        }
    }
}

impl Authentication {
    /// The code that proves it.
    pub fn prove(&self, claim: &Claim<'_>) -> Vec<u8> {
        self.algorithm.code()(self.secret.0.as_bytes(), claim)
    }

    /// Whether a code proves it. How long that takes tells nothing of the right one.
    pub fn is_proved(&self, claim: &Claim<'_>, code: &[u8]) -> bool {
        self.prove(claim).ct_eq(code).into()
    }
}

fn code<M: Mac + KeyInit>(secret: &[u8], claim: &Claim<'_>) -> Vec<u8> {
    let mut mac = <M as Mac>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(LABEL);
    mac.update(&[claim.stream as u8, claim.prover.0, claim.verifier.0]);
    mac.update(claim.own);
    mac.update(claim.answered);
    // The only part without a fixed length.
    mac.update(claim.resource.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authentication(algorithm: HmacAlgorithm) -> Authentication {
        Authentication { algorithm, secret: Secret::new("Raspberry Jam") }
    }

    #[test]
    fn a_proof_holds_for_what_it_was_made_for_and_nothing_else() {
        let claim = Claim {
            resource: "r0",
            stream: Stream::Data,
            prover: NodeId(0),
            verifier: NodeId(1),
            own: &[1; 32],
            answered: &[2; 32],
        };
        for algorithm in HmacAlgorithm::ALL {
            let known = authentication(*algorithm);
            let code = known.prove(&claim);
            assert!(known.is_proved(&claim, &code) && code.len() <= MAX_CODE_BYTES);
            let others = [
                Claim { resource: "r1", ..claim },
                Claim { stream: Stream::Control, ..claim },
                Claim { prover: NodeId(2), ..claim },
                Claim { verifier: NodeId(2), ..claim },
                Claim { own: &[3; 32], ..claim },
                Claim { answered: &[3; 32], ..claim },
                claim.reversed(),
            ];
            assert!(others.iter().all(|other| !known.is_proved(other, &code)), "{algorithm:?}");
            let unknown = Authentication { secret: Secret::new("Raspberry Jan"), ..known.clone() };
            assert!(!unknown.is_proved(&claim, &code));
            assert!(!known.is_proved(&claim, &code[1..]) && !known.is_proved(&claim, &[]));
        }
    }

    #[test]
    fn each_algorithm_has_its_place_as_its_number_on_the_wire_and_the_kernels_name() {
        for (place, algorithm) in HmacAlgorithm::ALL.iter().enumerate() {
            assert_eq!(place, *algorithm as usize);
            assert_eq!(HmacAlgorithm::from_u8(place as u8), Some(*algorithm));
            assert_eq!(HmacAlgorithm::from_name(&format!("{}-generic", algorithm.name())), Some(*algorithm));
        }
        assert_eq!(HmacAlgorithm::from_name("crc32c"), None);
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert!(!format!("{:?}", authentication(HmacAlgorithm::Sha1)).contains("Jam"));
    }
}
