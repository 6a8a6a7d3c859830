//! The certificate authority of one box, for hosts whose requests must be seen.
//!
//! The box gets its certificate; the key never enters it. Whoever keeps a box over a restart of the
//! control plane keeps the key with it ([`BoxAuthority::private_pem`], in a private place). Leaf
//! certificates are made on demand and live as long as the authority. Absent: any trust by the host
//! itself in what is signed here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

use crate::target::Host;

/// How long an authority is good, in days.
const LIFE_DAYS: i64 = 90;
/// Most leaf certificates that are kept.
const MAX_LEAVES: usize = 256;

/// Why an authority could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Making a key or a certificate.
    #[error("could not make a certificate for the box")]
    Make(#[source] rcgen::Error),
    /// Reading a kept authority.
    #[error("the kept certificate authority of the box can't be read; start the box anew")]
    Read(#[source] rustls::pki_types::pem::Error),
    /// A date that certificates can't have.
    #[error("the clock is out of the range of certificates")]
    Date,
    /// Setting up TLS with a certificate of ours.
    #[error("could not set up TLS with a certificate of the box")]
    Tls(#[source] rustls::Error),
}

/// A certificate authority that one box trusts.
pub struct BoxAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    private_pem: String,
    leaf_key: KeyPair,
    leaves: Mutex<HashMap<Host, Arc<rustls::ServerConfig>>>,
}

impl std::fmt::Debug for BoxAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BoxAuthority(…)")
    }
}

impl BoxAuthority {
    /// Makes a new one; its key comes from the system's randomness.
    ///
    /// # Errors
    /// [`AuthorityError`]
    pub fn generate(box_id: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Make)?;
        let mut params = authority_params(box_id);
        validity(&mut params, now)?;
        let certificate = params.self_signed(&key).map_err(AuthorityError::Make)?;
        let private_pem = format!("{}{}", certificate.pem(), key.serialize_pem());
        Self::from_private_pem(box_id, &private_pem)
    }

    /// Reads one that was kept, of the same box.
    ///
    /// # Errors
    /// [`AuthorityError`]
    pub fn from_private_pem(box_id: &str, pem: &str) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(AuthorityError::Read)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(AuthorityError::Read)?;
        let key = KeyPair::try_from(&PrivateKeyDer::Pkcs8(key)).map_err(AuthorityError::Make)?;
        let certificate_pem = pem.split_inclusive("-----END CERTIFICATE-----").next().unwrap_or_default();
        let issuer = Issuer::new(authority_params(box_id), key);
        Ok(Self {
            issuer,
            certificate_pem: format!("{}\n", certificate_pem.trim()),
            private_pem: pem.to_owned(),
            leaf_key: KeyPair::generate().map_err(AuthorityError::Make)?,
            leaves: Mutex::new(HashMap::new()),
            certificate: certificate.into_owned(),
        })
    }

    /// The certificate, for the box.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Certificate and key, to be kept outside of the box.
    #[must_use]
    pub fn private_pem(&self) -> &str {
        &self.private_pem
    }

    /// TLS as a host, HTTP/1.1 only.
    pub(crate) fn server_config(
        &self,
        host: &Host,
        now: Timestamp,
    ) -> Result<Arc<rustls::ServerConfig>, AuthorityError> {
        if let Some(config) = self.leaves.lock().unwrap_or_else(PoisonError::into_inner).get(host) {
            return Ok(Arc::clone(config));
        }
        let name = match host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        };
        let mut params = CertificateParams::new(vec![name]).map_err(AuthorityError::Make)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        validity(&mut params, now)?;
        let leaf = params.signed_by(&self.leaf_key, &self.issuer).map_err(AuthorityError::Make)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(AuthorityError::Tls)?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone(), self.certificate.clone()], key)
            .map_err(AuthorityError::Tls)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if leaves.len() >= MAX_LEAVES {
            leaves.clear();
        }
        leaves.insert(host.clone(), Arc::clone(&config));
        Ok(config)
    }
}

fn authority_params(box_id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Chargehand box {box_id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Not before and not after: whole days around now.
fn validity(params: &mut CertificateParams, now: Timestamp) -> Result<(), AuthorityError> {
    let day = |days: i64| {
        let at = now.checked_add(SignedDuration::from_hours(24 * days)).map_err(|_| AuthorityError::Date)?;
        let date = at.to_zoned(TimeZone::UTC).date();
        let part = |part: i8| u8::try_from(part).map_err(|_| AuthorityError::Date);
        // Certificates before 1950 or after 2049 are written in another way; none of ours is that.
        if !(1950..2050).contains(&date.year()) {
            return Err(AuthorityError::Date);
        }
        Ok(date_time_ymd(date.year().into(), part(date.month())?, part(date.day())?))
    };
    (params.not_before, params.not_after) = (day(-1)?, day(LIFE_DAYS)?);
    Ok(())
}
