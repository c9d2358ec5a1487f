//! Passwords of people: Argon2id within bounded memory and time.
//!
//! One hash takes 19 MiB. A semaphore alone would not bound the memory: glibc does not reuse freed
//! blocks of Argon2's alignment, and two permits were measured to hold over 700 MiB. So there are
//! as many buffers as permits; they are lent out, wiped and lent again, and never given back.
//!
//! Whoever calls this from a door limits the rate first: a hash is the most expensive thing an
//! anonymous visitor can ask for.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use data_encoding::BASE64_NOPAD;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::{Zeroize, Zeroizing};

use super::signature::same;
use crate::clock::{self, Entropy};
use crate::secret::Secret;

/// Memory of one hash in KiB (OWASP's first choice for Argon2id).
const MEMORY_KIB: u32 = 19_456;
/// Passes over the memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
/// Bytes of salt.
const SALT_LENGTH: usize = 16;
/// Bytes of hash.
const HASH_LENGTH: usize = 32;
/// What every stored hash begins with: algorithm, version 1.3 and the parameters above.
const PHC_START: &str = "$argon2id$v=19$m=19456,t=2,p=1$";
/// How long a request waits for its turn. A hash takes tens of milliseconds, so whoever waits
/// longer stands in a queue that only grows.
const WAIT: Duration = Duration::from_secs(2);
/// When to come back after [`PasswordError::Overloaded`].
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a password could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// All permits stayed taken. The door answers 503 with `Retry-After`.
    #[error("too many passwords are being checked")]
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The stored text is not a hash that [`Passwords::hash`] made. Somebody must look at the row.
    #[error("the stored password hash is unreadable")]
    StoredHash,
    /// The work could not be done: no memory, or the program is stopping.
    #[error("the password could not be hashed")]
    Failed,
}

/// Hashes and checks passwords. Clones share permits and buffers.
#[derive(Clone)]
pub struct Passwords(Arc<Shared>);

struct Shared {
    permits: Arc<Semaphore>,
    free: Mutex<Vec<Vec<Block>>>,
    made: AtomicUsize,
    wait: Duration,
    entropy: Arc<dyn Entropy>,
    /// The hash of no password at all, checked when a login does not exist.
    nothing: String,
}

impl Passwords {
    /// At most `permits` hashes at a time (as many as there are cores; at least one), which bounds
    /// the memory to 19 MiB times that. Salts come from `entropy`.
    #[must_use]
    pub fn new(permits: usize, entropy: Arc<dyn Entropy>) -> Self {
        Self::with_wait(permits, entropy, WAIT)
    }

    fn with_wait(permits: usize, entropy: Arc<dyn Entropy>, wait: Duration) -> Self {
        let mut random = [0; SALT_LENGTH + HASH_LENGTH];
        entropy.fill(&mut random);
        let (salt, hash) = random.split_at(SALT_LENGTH);
        let nothing = phc(salt, hash);
        Self(Arc::new(Shared {
            permits: Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS))),
            free: Mutex::new(Vec::new()),
            made: AtomicUsize::new(0),
            wait,
            entropy,
            nothing,
        }))
    }

    /// Hashes a password with a new salt and returns it as a PHC string, 97 characters of ASCII.
    ///
    /// # Errors
    /// [`PasswordError::Overloaded`] or [`PasswordError::Failed`].
    pub async fn hash(&self, password: &Secret) -> Result<String, PasswordError> {
        let mut salt = [0; SALT_LENGTH];
        self.0.entropy.fill(&mut salt);
        let hash = self.argon2id(password, salt).await?;
        Ok(phc(&salt, hash.as_ref()))
    }

    /// Whether `password` is the one behind `phc`, compared in constant time.
    ///
    /// # Errors
    /// [`PasswordError::StoredHash`] when `phc` is not a string that [`Passwords::hash`] made with
    /// the parameters of today; [`PasswordError::Overloaded`] or [`PasswordError::Failed`].
    pub async fn verify(&self, password: &Secret, phc: &str) -> Result<bool, PasswordError> {
        let (salt, expected) = parse_phc(phc).ok_or(PasswordError::StoredHash)?;
        let hash = self.argon2id(password, salt).await?;
        Ok(same(hash.as_ref(), &expected))
    }

    /// Spends the time of [`Passwords::verify`] for a login that does not exist, so that nobody can
    /// tell by the clock which logins do (WB-11). It fails under load just as `verify` does.
    ///
    /// # Errors
    /// [`PasswordError::Overloaded`] or [`PasswordError::Failed`].
    pub async fn verify_nothing(&self, password: &Secret) -> Result<(), PasswordError> {
        let matched = self.verify(password, &self.0.nothing).await?;
        std::hint::black_box(matched);
        Ok(())
    }

    async fn argon2id(
        &self,
        password: &Secret,
        salt: [u8; SALT_LENGTH],
    ) -> Result<Zeroizing<[u8; HASH_LENGTH]>, PasswordError> {
        let turn = clock::deadline(self.0.wait, self.0.permits.clone().acquire_owned()).await;
        let permit = match turn {
            Ok(Ok(permit)) => permit,
            Ok(Err(_closed)) => return Err(PasswordError::Failed),
            Err(_elapsed) => return Err(PasswordError::Overloaded { retry_after: RETRY_AFTER }),
        };
        let shared = Arc::clone(&self.0);
        let password = password.duplicate();
        // The permit travels with the work: when the caller goes away, the hash still runs to its
        // end, and until then nobody else may use its share of memory.
        let work = move || shared.lend(permit)?.fill(&password, &salt);
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Failed)?
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords")
    }
}

/// A buffer on loan. Dropping it wipes it, puts it back, and only then frees the permit.
struct Loan {
    blocks: Vec<Block>,
    owner: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Shared {
    fn lend(self: Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Loan, PasswordError> {
        let used = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let blocks = match used {
            Some(blocks) => blocks,
            None => self.make()?,
        };
        Ok(Loan { blocks, owner: self, _permit: permit })
    }

    fn make(&self) -> Result<Vec<Block>, PasswordError> {
        let count = MEMORY_KIB as usize;
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(count).map_err(|_| PasswordError::Failed)?;
        blocks.resize(count, Block::new());
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(blocks)
    }
}

impl Loan {
    fn fill(
        mut self,
        password: &Secret,
        salt: &[u8; SALT_LENGTH],
    ) -> Result<Zeroizing<[u8; HASH_LENGTH]>, PasswordError> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_LENGTH)).map_err(|_| PasswordError::Failed)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut hash = Zeroizing::new([0; HASH_LENGTH]);
        argon2
            .hash_password_into_with_memory(password.expose().as_bytes(), salt, hash.as_mut(), &mut self.blocks)
            .map_err(|_| PasswordError::Failed)?;
        Ok(hash)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.iter_mut().zeroize();
        self.owner.free.lock().unwrap_or_else(PoisonError::into_inner).push(blocks);
        // `_permit` is dropped after this, so a freed permit always finds a free buffer.
    }
}

/// Writes a hash in the PHC string format.
fn phc(salt: &[u8], hash: &[u8]) -> String {
    format!("{PHC_START}{}${}", BASE64_NOPAD.encode(salt), BASE64_NOPAD.encode(hash))
}

/// Reads a PHC string with exactly our parameters. Others are refused: their cost is not bounded.
fn parse_phc(text: &str) -> Option<([u8; SALT_LENGTH], [u8; HASH_LENGTH])> {
    let (salt, hash) = text.strip_prefix(PHC_START)?.split_once('$')?;
    let salt = BASE64_NOPAD.decode(salt.as_bytes()).ok()?;
    let hash = BASE64_NOPAD.decode(hash.as_bytes()).ok()?;
    Some((salt.try_into().ok()?, hash.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHash, PasswordVerifier};

    use super::*;
    use crate::clock::{SeededEntropy, Stopwatch};

    fn passwords(permits: usize, wait: Duration) -> Passwords {
        Passwords::with_wait(permits, Arc::new(SeededEntropy::new(11)), wait)
    }

    #[tokio::test]
    async fn the_right_password_is_accepted_and_others_are_not() {
        let passwords = passwords(2, Duration::from_mins(1));
        let password = Secret::new("correct horse battery staple");
        let stored = passwords.hash(&password).await.expect("hashed");

        assert!(stored.starts_with(PHC_START) && stored.len() == 97, "{stored}");
        assert!(passwords.verify(&password, &stored).await.expect("checked"));
        assert!(!passwords.verify(&Secret::new("Correct horse battery staple"), &stored).await.expect("checked"));
        assert!(!passwords.verify(&Secret::new(""), &stored).await.expect("checked"));
        assert_ne!(stored, passwords.hash(&password).await.expect("hashed"), "every hash has its own salt");
    }

    #[tokio::test]
    async fn the_argon2_crates_own_reader_of_phc_strings_accepts_our_hashes() {
        let stored = passwords(1, WAIT).hash(&Secret::new("πassword")).await.expect("hashed");
        let parsed = PasswordHash::new(&stored).expect("a PHC string");
        assert!(Argon2::default().verify_password("πassword".as_bytes(), &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"password", &parsed).is_err());
    }

    #[tokio::test]
    async fn stored_hashes_with_other_parameters_or_shapes_are_refused() {
        let passwords = passwords(1, WAIT);
        let good = passwords.hash(&Secret::new("x")).await.expect("hashed");
        let bad = [
            String::new(),
            "x".to_owned(),
            good.replace("m=19456", "m=4194304"),
            good.replace("t=2", "t=1"),
            good.replace("argon2id", "argon2i"),
            good.replace("v=19", "v=16"),
            good[..good.len() - 1].to_owned(),
            format!("{good}="),
            format!("{good}$"),
            format!("{PHC_START}$"),
        ];
        for text in bad {
            let refused = passwords.verify(&Secret::new("x"), &text).await;
            assert!(matches!(refused, Err(PasswordError::StoredHash)), "{text}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn fifty_hashes_at_once_never_hold_more_buffers_than_permits() {
        let passwords = passwords(2, Duration::from_mins(5));
        let work: Vec<_> = (0..50)
            .map(|number| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.hash(&Secret::new(format!("password {number}"))).await })
            })
            .collect();
        for hash in work {
            hash.await.expect("joined").expect("hashed");
        }
        let made = passwords.0.made.load(Ordering::Relaxed);
        assert!((1..=2).contains(&made), "{made} buffers of 19 MiB");
    }

    #[tokio::test]
    async fn buffers_come_back_wiped() {
        let passwords = passwords(1, WAIT);
        passwords.hash(&Secret::new("left behind?")).await.expect("hashed");
        let free = passwords.0.free.lock().expect("lock");
        assert_eq!(free.len(), 1);
        assert!(free[0].iter().all(|block| block.as_ref().iter().all(|word| *word == 0)));
    }

    #[tokio::test]
    async fn waiting_ends_with_a_time_to_come_back() {
        let passwords = passwords(1, Duration::from_millis(5));
        let taken = passwords.0.permits.clone().acquire_owned().await.expect("open");
        for _ in 0..2 {
            let refused = passwords.hash(&Secret::new("x")).await;
            assert!(matches!(refused, Err(PasswordError::Overloaded { retry_after }) if retry_after == RETRY_AFTER));
            assert!(matches!(passwords.verify_nothing(&Secret::new("x")).await, Err(PasswordError::Overloaded { .. })));
        }
        drop(taken);
        passwords.hash(&Secret::new("x")).await.expect("free again");
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_gives_neither_permit_nor_buffer_away_early() {
        let passwords = passwords(1, Duration::from_mins(1));
        for _ in 0..5 {
            let secret = Secret::new("x");
            let mut hashing = Box::pin(passwords.hash(&secret));
            assert!(futures_util::poll!(&mut hashing).is_pending(), "the work has begun");
            drop(hashing);
        }
        passwords.hash(&Secret::new("x")).await.expect("hashed");
        assert_eq!(passwords.0.made.load(Ordering::Relaxed), 1);
    }

    /// The statistical proof (WB-11) needs a quiet machine and the whole door; this catches the
    /// gross mistake of answering at once.
    #[tokio::test]
    async fn an_unknown_login_costs_a_real_hash_wb_11() {
        let passwords = passwords(1, Duration::from_mins(1));
        let secret = Secret::new("x");
        let stored = passwords.hash(&secret).await.expect("hashed");
        let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
        for _ in 0..5 {
            let watch = Stopwatch::start();
            passwords.verify(&secret, &stored).await.expect("checked");
            known = known.min(watch.elapsed());
            let watch = Stopwatch::start();
            passwords.verify_nothing(&secret).await.expect("checked");
            unknown = unknown.min(watch.elapsed());
        }
        assert!(unknown > known / 4 && known > unknown / 4, "{known:?} against {unknown:?}");
    }
}
