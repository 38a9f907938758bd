// What of OpenSSL 3 tproxy uses, and its macros as functions: Swift sees no macro that takes arguments.

#ifndef TPROXY_COPENSSL_H
#define TPROXY_COPENSSL_H

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

static inline void tp_SSL_CTX_set_mode(SSL_CTX *context, uint32_t mode) { SSL_CTX_set_mode(context, mode); }

#endif
