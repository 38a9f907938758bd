// The `--ssl-*` options: each by itself, and which of them need another.

extension SettingsReader {
    /// Nil without `--ssl-certfile`; then the others mean nothing, and an option that means nothing is refused.
    func tls() throws(OptionError) -> TLSSettings? {
        let certificates = try paths(.sslCertfile)
        let keys = try paths(.sslKeyfile)
        guard let certificates else {
            let others: [OptionName] = [.sslKeyfile, .sslCACerts, .sslCertReqs, .sslCiphers, .sslMinVersion, .sslALPN]
            for option in others {
                // What is so anyway may be said.
                guard let given = value(option), given.text != option.standard else { continue }
                throw OptionError(
                    option: given.source, value: nil, reason: "needs \(OptionName.sslCertfile.spelled)")
            }
            return nil
        }
        var settings = TLSSettings(certificateFiles: certificates.map(\.text))
        if let keys {
            guard keys.count <= certificates.count else {
                throw keys[certificates.count].refused(
                    "there are \(keys.count) keys, and \(certificates.count) of \(OptionName.sslCertfile.spelled)")
            }
            settings.keyFiles = keys.map(\.text)
        }
        try clients(&settings)
        if let given = value(.sslCiphers) {
            guard (1...Limits.tlsCiphersBytesMax).contains(given.text.utf8.count),
                given.text.utf8.allSatisfy({ (0x21...0x7e).contains($0) })
            else { throw given.refused("expected OpenSSL's names of ciphers with colons between") }
            settings.ciphers = given.text
        }
        settings.versionMin = try choice(.sslMinVersion) ?? settings.versionMin
        settings.alpn = try protocols()
        return settings
    }

    private func paths(_ option: OptionName) throws(OptionError) -> [Given]? {
        guard let given = given(option) else { return nil }
        for one in given where one.text.isEmpty || one.text.utf8.contains(0) { throw one.refused("expected a path") }
        guard given.count <= Limits.certificatesMax else {
            throw OptionError(
                option: option.spelled, value: nil, reason: "may be given \(Limits.certificatesMax) times")
        }
        return given
    }

    /// Who signs clients' certificates, and whether one is asked for.
    ///
    /// The classic took authorities without being told to ask, and asked nobody. Whoever names them believes that clients are
    /// checked: so the question has to be answered, be it with 0.
    private func clients(_ settings: inout TLSSettings) throws(OptionError) {
        let requirement = value(.sslCertReqs)
        if let requirement {
            guard let number = Int(requirement.text), requirement.text.utf8.count == 1,
                let known = CertificateRequirement(rawValue: number)
            else { throw requirement.refused("expected 0, 1 or 2") }
            settings.clientCertificates = known
        }
        guard let authorities = value(.sslCACerts) else {
            if let requirement, settings.clientCertificates != .none {
                throw requirement.refused("needs \(OptionName.sslCACerts.spelled)")
            }
            return
        }
        guard !authorities.text.isEmpty, !authorities.text.utf8.contains(0) else {
            throw authorities.refused("expected a path")
        }
        guard requirement != nil else {
            throw OptionError(
                option: authorities.source, value: nil,
                reason:
                    "needs \(OptionName.sslCertReqs.spelled): 2 requires a certificate, 1 checks it, 0 asks for none")
        }
        settings.clientAuthoritiesFile = authorities.text
    }

    private func protocols() throws(OptionError) -> [String] {
        guard let given = value(.sslALPN) else { return [] }
        let names = given.text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard names.count <= Limits.alpnProtocolsMax, Set(names).count == names.count,
            names.allSatisfy({ name in
                (1...255).contains(name.utf8.count) && name.utf8.allSatisfy { (0x21...0x7e).contains($0) }
            })
        else {
            throw given.refused(
                "expected up to \(Limits.alpnProtocolsMax) different names of protocols with commas between: h2,http/1.1"
            )
        }
        return names
    }
}
