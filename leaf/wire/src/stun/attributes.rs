//! The attributes that ICE adds to STUN (RFC 8445 section 16.1), which `stun-types` has not.

use stun_types::attribute::AttributeType;

pub(super) const PRIORITY: AttributeType = AttributeType::new(0x0024);
pub(super) const USE_CANDIDATE: AttributeType = AttributeType::new(0x0025);
pub(super) const ICE_CONTROLLED: AttributeType = AttributeType::new(0x8029);
pub(super) const ICE_CONTROLLING: AttributeType = AttributeType::new(0x802a);
