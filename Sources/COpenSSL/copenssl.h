// What of OpenSSL 3 tproxy uses, and its macros as functions: Swift sees no macro that takes arguments.

#ifndef TPROXY_COPENSSL_H
#define TPROXY_COPENSSL_H

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

static inline void tp_SSL_CTX_set_mode(SSL_CTX *context, uint32_t mode) { SSL_CTX_set_mode(context, mode); }
static inline void tp_SSL_CTX_clear_mode(SSL_CTX *context, uint32_t mode) { SSL_CTX_clear_mode(context, mode); }

// For the settings of both sides. Options are 64 bits, made by a macro of their number.
static const uint64_t tp_SSL_OP_NO_TICKET = SSL_OP_NO_TICKET;
static const uint64_t tp_SSL_OP_NO_COMPRESSION = SSL_OP_NO_COMPRESSION;
static const uint64_t tp_SSL_OP_NO_RENEGOTIATION = SSL_OP_NO_RENEGOTIATION;
static const uint64_t tp_SSL_OP_CIPHER_SERVER_PREFERENCE = SSL_OP_CIPHER_SERVER_PREFERENCE;
static const uint64_t tp_SSL_OP_PRIORITIZE_CHACHA = SSL_OP_PRIORITIZE_CHACHA;

static inline int tp_SSL_CTX_set_min_proto_version(SSL_CTX *context, int version) {
    return (int)SSL_CTX_set_min_proto_version(context, version);
}
static inline int tp_SSL_CTX_set_max_proto_version(SSL_CTX *context, int version) {
    return (int)SSL_CTX_set_max_proto_version(context, version);
}
static inline int tp_SSL_CTX_set1_groups_list(SSL_CTX *context, const char *names) {
    return (int)SSL_CTX_set1_groups_list(context, names);
}
static inline void tp_SSL_CTX_set_dh_auto(SSL_CTX *context, int on) { SSL_CTX_set_dh_auto(context, on); }
static inline void tp_SSL_CTX_set_session_cache_mode(SSL_CTX *context, long mode) {
    SSL_CTX_set_session_cache_mode(context, mode);
}
static inline int tp_SSL_CTX_add1_chain_cert(SSL_CTX *context, X509 *certificate) {
    return (int)SSL_CTX_add1_chain_cert(context, certificate);
}
static inline void tp_SSL_CTX_set_tlsext_servername_callback(
    SSL_CTX *context, int (*callback)(SSL *, int *, void *), void *argument) {
    SSL_CTX_set_tlsext_servername_callback(context, callback);
    SSL_CTX_set_tlsext_servername_arg(context, argument);
}
static inline void tp_SSL_CTX_set_tlsext_status_cb(SSL_CTX *context, int (*callback)(SSL *, void *)) {
    SSL_CTX_set_tlsext_status_cb(context, callback);
}
/// Has a copy of an OCSP response sent to the client. 0: there is no memory.
static inline int tp_SSL_set_tlsext_status_ocsp_resp(SSL *session, const uint8_t *bytes, size_t length) {
    void *copy = OPENSSL_memdup(bytes, length);
    return copy != NULL && SSL_set_tlsext_status_ocsp_resp(session, copy, (long)length) == 1;
}
static inline int tp_SSL_set_tlsext_host_name(SSL *session, const char *name) {
    return (int)SSL_set_tlsext_host_name(session, name);
}
static inline int tp_SSL_CTX_get_ex_new_index(CRYPTO_EX_free *release) {
    return SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, release);
}
static inline int tp_SSL_get_ex_new_index(CRYPTO_EX_free *release) {
    return SSL_get_ex_new_index(0, NULL, NULL, NULL, release);
}
/// Keys a MAC that OpenSSL has made for a session ticket: HMAC with SHA-256.
static inline int tp_ticket_mac_init(EVP_MAC_CTX *mac, const unsigned char *key, size_t length) {
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0), OSSL_PARAM_construct_end()};
    return EVP_MAC_init(mac, key, length, parameters);
}
static inline int tp_ciphers_count(const STACK_OF(SSL_CIPHER) *ciphers) { return sk_SSL_CIPHER_num(ciphers); }
static inline const SSL_CIPHER *tp_cipher(const STACK_OF(SSL_CIPHER) *ciphers, int index) {
    return sk_SSL_CIPHER_value(ciphers, index);
}
static inline int tp_names_count(const STACK_OF(X509_NAME) *names) { return sk_X509_NAME_num(names); }
static inline int tp_general_names_count(const GENERAL_NAMES *names) { return sk_GENERAL_NAME_num(names); }
static inline const GENERAL_NAME *tp_general_name(const GENERAL_NAMES *names, int index) {
    return sk_GENERAL_NAME_value(names, index);
}
/// Writes a name as in RFC 2253: ASCII, everything else escaped.
static inline int tp_X509_NAME_print(BIO *output, const X509_NAME *name) {
    return X509_NAME_print_ex(output, name, 0, XN_FLAG_RFC2253);
}
/// The text or the address of a name of one of the kinds that have one; NULL for the others.
static inline const ASN1_STRING *tp_general_name_string(const GENERAL_NAME *name) {
    switch (name->type) {
    case GEN_EMAIL:
    case GEN_DNS:
    case GEN_URI: return name->d.ia5;
    case GEN_IPADD: return name->d.iPAddress;
    default: return NULL;
    }
}
static inline void tp_BIO_clear_retry(BIO *bio) { BIO_clear_retry_flags(bio); }
static inline void tp_BIO_set_retry_read(BIO *bio) { BIO_set_retry_read(bio); }
static inline int tp_ERR_GET_REASON(unsigned long error) { return ERR_GET_REASON(error); }

#endif
