use jiff::ToSpan;
use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{AdminError, Identity};

/// Days that the authority is valid, and that a certificate of its is.
const AUTHORITY_DAYS: i64 = 3650;
const CERTIFICATE_DAYS: i64 = 397;

/// Moat's own certificate authority, for sites that bring no certificate. Browsers are given its certificate once.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    machine: String,
    certificate: String,
}

impl Authority {
    /// Makes a new one (ECDSA on P-256) that names this machine.
    ///
    /// # Errors
    /// [`AdminError::Authority`].
    pub fn new(machine: &str) -> Result<Self, AdminError> {
        let key = KeyPair::generate()?;
        let parameters = parameters(machine);
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(parameters, key), machine: machine.to_owned(), certificate })
    }

    /// Takes up one that was kept: the machine that it names, its certificate in PEM form, its key as PKCS #8.
    ///
    /// # Errors
    /// [`AdminError::AuthorityKey`].
    pub fn restore(machine: &str, certificate: &str, key: &[u8]) -> Result<Self, AdminError> {
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key)).map_err(|_| AdminError::AuthorityKey)?;
        Ok(Self {
            issuer: Issuer::new(parameters(machine), key),
            machine: machine.to_owned(),
            certificate: certificate.to_owned(),
        })
    }

    /// The machine that it names.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Its certificate in PEM form: what browsers and clients are to trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key as PKCS #8, to be kept sealed.
    pub fn key(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    /// Issues a server's certificate for host names and IP addresses, with a fresh key, in PEM form.
    ///
    /// # Errors
    /// [`AdminError::Authority`] where a name is none.
    pub fn issue(&self, names: &[String]) -> Result<Identity, AdminError> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names)?;
        parameters.distinguished_name = name("Moat");
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        valid_for(CERTIFICATE_DAYS, &mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Identity::new(vec![certificate.der().clone()], &key)
    }
}

/// May sign servers' certificates and nothing below them.
fn parameters(machine: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name(&format!("Moat on {machine}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(AUTHORITY_DAYS, &mut parameters);
    parameters
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// From yesterday on, since clocks of an isolated network differ.
fn valid_for(days: i64, parameters: &mut CertificateParams) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let moment = |date: Date| {
        date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    parameters.not_before = moment(today.saturating_sub(1.days()));
    parameters.not_after = moment(today.saturating_add(days.days()));
}
