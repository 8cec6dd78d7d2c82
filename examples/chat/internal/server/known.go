package server

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// referenceSections are sections of the reference server that mean nothing here.
var referenceSections = strings.Fields(`
	AccessControlSettings AnalyticsSettings AnnouncementSettings AuditSettings AutoTranslationSettings BleveSettings CacheSettings ClientRequirements
	CloudSettings ComplianceSettings ConnectedWorkspacesSettings ContentFlaggingSettings DisplaySettings ElasticsearchSettings EmailSettings
	ExperimentalAuditSettings ExperimentalSettings ExportSettings FeatureFlags GitLabSettings GoogleSettings GuestAccountsSettings ImageProxySettings
	ImportSettings IntuneSettings LdapSettings LocalizationSettings MessageExportSettings MetricsSettings MobileEphemeralModeSettings
	NativeAppSettings NotificationLogSettings NotificationSettings Office365Settings OpenIdSettings PasswordSettings PluginSettings PrivacySettings
	ProductSettings RateLimitSettings ReplicaLagSettings SamlSettings SupportSettings TeamSettings ThemeSettings WranglerSettings
`)

// referenceKeys are keys of the reference server that mean nothing here, by section.
var referenceKeys = map[string][]string{
	"ServiceSettings": strings.Fields(`
		AllowCookiesForSubdomains AllowCorsFrom AllowEditPost AllowPersistentNotifications AllowPersistentNotificationsForGuests AllowSyncedDrafts
		AllowUntrustedInternalConnections AllowedUntrustedInternalConnections CloseUnusedDirectMessages ClusterLogTimeoutMilliseconds CollapsedThreads
		ConnectionSecurity CorsAllowCredentials CorsDebug CorsExposedHeaders DebugSplit DeveloperFlags DisableBotsWhenOwnerIsDeactivated
		DisableLegacyMFA EnableAPIChannelDeletion EnableAPIPostDeletion EnableAPITeamDeletion EnableAPITriggerAdminNotifications EnableAPIUserDeletion
		EnableAWSMetering EnableBotAccountCreation EnableBurnOnRead EnableChannelViewedMessages EnableClientPerformanceDebugging EnableCommands
		EnableCustomEmoji EnableCustomGroups EnableDesktopLandingPage EnableDeveloper EnableDynamicClientRegistration EnableEmailInvitations
		EnableEmojiPicker EnableFileSearch EnableGifPicker EnableIncomingWebhooks EnableInlineLatex EnableInsecureOutgoingConnections EnableLatex
		EnableLegacySidebar EnableLinkPreviews EnableLocalMode EnableMultifactorAuthentication EnableOAuthServiceProvider EnableOnboardingFlow
		EnableOnlyAdminIntegrations EnableOpenTracing EnableOpenServer EnableOutgoingOAuthConnections EnableOutgoingWebhooks EnablePermalinkPreviews
		EnablePostIconOverride EnablePostSearch EnablePostUsernameOverride EnablePreviewFeatures EnableSVGs EnableSecurityFixAlert EnableTesting
		EnableTutorial EnableUserAccessTokens EnableUserStatuses EnableUserTypingMessages EnableWebHubChannelIteration EnforceMultifactorAuthentication
		ExperimentalChannelOrganization ExperimentalChannelSidebarOrganization ExperimentalDataPrefetch
		ExperimentalEnableAuthenticationTransfer ExperimentalEnableDefaultChannelLeaveJoinMessages ExperimentalEnableHardenedMode
		ExperimentalGroupUnreadChannels ExperimentalLdapGroupSync ExperimentalStrictCSRFEnforcement ExtendSessionLengthWithActivity
		FeatureFlagSyncIntervalSeconds FrameAncestors Forward80To443 GfycatApiKey GfycatApiSecret GiphySdkKey GoogleDeveloperKey
		GoroutineHealthThreshold ImageProxyOptions ImageProxyType ImageProxyURL LetsEncryptCertificateCacheFile LicenseFileLocation
		LocalModeSocketLocation ManagedResourcePaths MaximumLoginAttempts MaximumPayloadSizeBytes MaximumURLLength MinimumDesktopAppVersion
		MinimumHashtagLength OutgoingIntegrationRequestsTimeout PersistentNotificationIntervalMinutes PersistentNotificationMaxCount
		PersistentNotificationMaxRecipients PostEditTimeLimit PostPriority RefreshPostStatsRunTime RestrictCustomEmojiCreation RestrictLinkPreviews
		RestrictPostDelete ScheduledPosts SegmentDeveloperKey SessionCacheInMinutes SessionIdleTimeoutInMinutes SessionLengthMobileInDays
		SessionLengthMobileInHours SessionLengthSSOInDays SessionLengthSSOInHours SessionLengthWebInDays SessionLengthWebInHours SplitKey
		StrictCSRFEnforcement TLSCertFile TLSKeyFile TLSMinVer TLSOverwriteCiphers TLSStrictTransport TLSStrictTransportMaxAge
		TerminateSessionsOnPasswordChange ThreadAutoFollow TimeBetweenUserTypingUpdatesMilliseconds TrustedProxyIPHeader
		UniqueEmojiReactionLimitPerPost UseLetsEncrypt WebserverMode WebsocketPort WebsocketSecurePort WebsocketURL WriteTimeout`),
	"ClusterSettings": strings.Fields(`
		EnableExperimentalGossipEncryption IdleConnTimeoutMilliseconds InterNodeListenAddress InterNodeUrls MaxIdleConns MaxIdleConnsPerHost
		StreamingPort UseExperimentalGossip`),
	"SqlSettings": strings.Fields(`
		AtRestEncryptKey DisableDatabaseSearch MigrationsStatementTimeoutSeconds ReplicaLagSettings ReplicaMonitorIntervalSeconds
		AnalyticsQueryTimeout`),
	"FileSettings": strings.Fields(`
		AmazonS3AccessKeyId AmazonS3Bucket AmazonS3Endpoint AmazonS3PathPrefix AmazonS3Region AmazonS3RequestTimeoutMilliseconds AmazonS3SSE
		AmazonS3SSL AmazonS3SecretAccessKey AmazonS3SignV2 AmazonS3StorageClass AmazonS3Trace AmazonS3UploadPartSizeBytes ArchiveRecursion
		AzureAccessKey AzureAccessSecret AzureContainer AzureEndpoint AzurePathPrefix AzureRequestTimeoutMilliseconds AzureSSL AzureStorageAccount
		DedicatedExportStore EnableFileAttachments EnableMobileDownload EnableMobileUpload EnablePublicLink ExportAmazonS3AccessKeyId
		ExportAmazonS3Bucket ExportAmazonS3Endpoint ExportAmazonS3PathPrefix ExportAmazonS3PresignExpiresSeconds ExportAmazonS3Region
		ExportAmazonS3RequestTimeoutMilliseconds ExportAmazonS3SSE ExportAmazonS3SSL ExportAmazonS3SecretAccessKey ExportAmazonS3SignV2
		ExportAmazonS3StorageClass ExportAmazonS3Trace ExportAmazonS3UploadPartSizeBytes ExportDirectory ExportDriverName ExtractContent InitialFont
		MaxImageDecoderConcurrency MaxImageResolution PreviewHeight PreviewWidth ProfileHeight ProfileWidth PublicLinkSalt ThumbnailHeight
		ThumbnailWidth`),
	"JobSettings": strings.Fields(`CleanupConfigThresholdDays CleanupJobsThresholdDays`),
	"LogSettings": strings.Fields(`
		AdvancedLoggingConfig AdvancedLoggingJSON EnableColor EnableDiagnostics EnableFile EnableSentry EnableWebhookDebugging FileFormat FileJson
		FileLevel FileLocation MaxFieldSize VerboseDiagnostics`),
	"DataRetentionSettings": strings.Fields(`
		BatchSize BoardsRetentionDays EnableBoardsDeletion EnableFileDeletion FileRetentionDays FileRetentionHours MessageRetentionHours
		PreservePinnedPosts RetentionIdsBatchSize TimeBetweenBatchesMilliseconds`),
}

func known(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// fields are the names of the exported fields of t.
func fields(t reflect.Type) (names []string) {
	for f := range t.Fields() {
		if f.IsExported() {
			names = append(names, f.Name)
		}
	}
	return names
}

func sectionNames() []string { return append(fields(reflect.TypeFor[Config]()), referenceSections...) }

// sectionName is how the section is written that name names in any case.
func sectionName(name string) string {
	if f, ok := reflect.TypeFor[Config]().FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, name) }); ok {
		return f.Name
	}
	return name
}

func keyNames(section string) []string {
	f, _ := reflect.TypeFor[Config]().FieldByName(section)
	return append(fields(f.Type), referenceKeys[section]...)
}

// suggest is the remedy for a name that is not known.
func suggest(name string, names []string) string {
	best, distance := "", len(name)/2+1
	for _, n := range names {
		if d := edits(strings.ToLower(name), strings.ToLower(n)); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return "remove it"
	}
	return fmt.Sprintf("did you mean %s?", best)
}

// edits counts the letters to insert, delete or replace that make b of a (Levenshtein).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
