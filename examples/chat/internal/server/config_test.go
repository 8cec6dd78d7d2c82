package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/examples/chat/internal/server"
)

// page is how the reference server's high-availability guide writes its sections, keys of ours without effect included.
const page = `{
	"ServiceSettings": {
		"SiteURL": "https://chat.example.com",
		"ListenAddress": ":8065",
		"ConnectionSecurity": "",
		"TLSCertFile": "",
		"EnableDeveloper": false
	},
	"ClusterSettings": {
		"Enable": true,
		"ClusterName": "production",
		"OverrideHostname": "",
		"NetworkInterface": "",
		"BindAddress": "",
		"AdvertiseAddress": "",
		"UseIpAddress": true,
		"EnableGossipCompression": true,
		"EnableExperimentalGossipEncryption": false,
		"EnableGossipEncryption": true,
		"ReadOnlyConfig": true,
		"GossipPort": 8074
	},
	"SqlSettings": {
		"DriverName": "postgres",
		"DataSource": "postgres://master_user:master_password@master.server/chat?sslmode=disable&connect_timeout=10",
		"DataSourceReplicas": ["postgres://replica_user:replica_password@replica.server/chat?sslmode=disable&connect_timeout=10"],
		"DataSourceSearchReplicas": ["postgres://search_user:search_password@search.server/chat?sslmode=disable&connect_timeout=10"],
		"MaxIdleConns": 20,
		"ConnMaxLifetimeMilliseconds": 3600000,
		"ConnMaxIdleTimeMilliseconds": 300000,
		"MaxOpenConns": 300,
		"Trace": false,
		"AtRestEncryptKey": "",
		"QueryTimeout": 30,
		"DisableDatabaseSearch": false,
		"MigrationsStatementTimeoutSeconds": 100000,
		"ReplicaLagSettings": []
	},
	"FileSettings": {
		"DriverName": "local",
		"Directory": "/mnt/nas/chat/",
		"MaxFileSize": 104857600,
		"EnablePublicLink": true,
		"AmazonS3Bucket": ""
	},
	"JobSettings": {
		"RunJobs": true,
		"RunScheduler": true
	},
	"EmailSettings": {"SMTPServer": "localhost"}
}`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestLoadReadsTheSectionsOfTheReferenceServer(t *testing.T) {
	cfg, err := server.Load(write(t, page), nil)
	require.NoError(t, err)
	require.True(t, cfg.ClusterSettings.Enable)
	require.Equal(t, "production", cfg.ClusterSettings.ClusterName)
	require.True(t, cfg.ClusterSettings.UseIPAddress)
	require.Equal(t, 8074, cfg.ClusterSettings.GossipPort)
	require.Equal(t, 300, cfg.SqlSettings.MaxOpenConns)
	require.Equal(t, 20, cfg.SqlSettings.MaxIdleConns)
	require.Len(t, cfg.SqlSettings.DataSourceReplicas, 1)
	require.Len(t, cfg.SqlSettings.DataSourceSearchReplicas, 1)
	require.Equal(t, "/mnt/nas/chat/", cfg.FileSettings.Directory)
	require.True(t, cfg.JobSettings.RunScheduler)
	require.Equal(t, []string{
		"ClusterSettings.EnableExperimentalGossipEncryption", "EmailSettings", "FileSettings.AmazonS3Bucket", "FileSettings.EnablePublicLink",
		"ServiceSettings.ConnectionSecurity", "ServiceSettings.EnableDeveloper", "ServiceSettings.TLSCertFile", "SqlSettings.AtRestEncryptKey",
		"SqlSettings.DisableDatabaseSearch", "SqlSettings.MigrationsStatementTimeoutSeconds", "SqlSettings.ReplicaLagSettings",
	}, cfg.Ignored())

	// All that is missing to run it is a key of the cluster's own.
	err = cfg.Validate()
	require.EqualError(t, err, "ClusterSettings.EncryptionKeys [] is empty: make a key with `chat keygen` and give the same one to all servers")
}

func TestLoadEnvironmentWins(t *testing.T) {
	cfg, err := server.Load(write(t, page), []string{
		"PATH=/bin", "NINES_CHAOS=1", "NINES_CLUSTERSETTINGS_GOSSIPPORT=9074", "NINES_CLUSTERSETTINGS_ENABLE=false",
		"NINES_SQLSETTINGS_DATASOURCEREPLICAS=a b", "NINES_FILESETTINGS_DIRECTORY=/x", "NINES_EMAILSETTINGS_SMTPSERVER=x", "NINES_SQLSETTINGS_ATRESTENCRYPTKEY=x",
	})
	require.NoError(t, err)
	require.Equal(t, 9074, cfg.ClusterSettings.GossipPort)
	require.False(t, cfg.ClusterSettings.Enable)
	require.Equal(t, []string{"a", "b"}, cfg.SqlSettings.DataSourceReplicas)
	require.Equal(t, "/x", cfg.FileSettings.Directory)
	require.Contains(t, cfg.Ignored(), "NINES_EMAILSETTINGS_SMTPSERVER")
	require.Contains(t, cfg.Ignored(), "NINES_SQLSETTINGS_ATRESTENCRYPTKEY")
}

func TestLoadWithoutAFileIsTheDefault(t *testing.T) {
	cfg, err := server.Load("", nil)
	require.NoError(t, err)
	require.Equal(t, server.Default(), cfg)
}

func TestLoadRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		env  []string
		want string
	}{
		"unknown key":        {text: `{"ClusterSettings":{"GosipPort":1}}`, want: "setting ClusterSettings.GosipPort is not known: did you mean GossipPort?"},
		"far key":            {text: `{"ClusterSettings":{"Zzzzzzzzzzzz":1}}`, want: "setting ClusterSettings.Zzzzzzzzzzzz is not known: remove it"},
		"unknown section":    {text: `{"ClusterSetings":{}}`, want: `configuration section "ClusterSetings" is not known: did you mean ClusterSettings?`},
		"wrong type":         {text: `{"ClusterSettings":{"GossipPort":"x"}}`, want: `ClusterSettings.GossipPort is "x": give a whole number`},
		"wrong type, secret": {text: `{"SqlSettings":{"DataSource":["secret"]}}`, want: "SqlSettings.DataSource is not of the right form: give a text"},
		"section not object": {text: `{"SqlSettings":1}`, want: "configuration section SqlSettings is not a JSON object"},
		"not JSON":           {text: "{\n\"a\":", want: "is not a JSON object"},
		"two values":         {text: `{} {}`, want: "something follows the closing brace"},
		"unknown variable":   {text: `{}`, env: []string{"NINES_CLUSTERSETTINGS_GOSIPPORT=1"}, want: "environment variable NINES_CLUSTERSETTINGS_GOSIPPORT names no known setting: did you mean GossipPort?"},
		"variable's value":   {text: `{}`, env: []string{"NINES_CLUSTERSETTINGS_ENABLE=maybe"}, want: `environment variable NINES_CLUSTERSETTINGS_ENABLE is "maybe": give true or false`},
		"variable's section": {text: `{}`, env: []string{"NINES_CLUSTERSETINGS_ENABLE=1", "NINES_CLUSTRSETTINGS_ENABLE=1"}, want: "names no known section: did you mean ClusterSettings?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := server.Load(write(t, c.text), c.env)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
	_, err := server.Load(filepath.Join(t.TempDir(), "none.json"), nil)
	require.ErrorContains(t, err, "cannot be read")
}

func TestLoadTellsAllFaults(t *testing.T) {
	_, err := server.Load(write(t, `{"ClusterSettings":{"GosipPort":1,"Enabel":true},"SqlSettings":{"QueryTimeout":"soon"}}`), []string{"NINES_FILESETTINGS_DIRECTRY=x"})
	require.Error(t, err)
	require.Len(t, strings.Split(err.Error(), "\n"), 4)
}

func TestValidate(t *testing.T) {
	key := strings.Repeat("A", 43) + "="
	good := func() server.Config {
		cfg := server.Default()
		cfg.SqlSettings.DriverName, cfg.SqlSettings.DataSource = "sqlite", "file:x.db"
		cfg.ClusterSettings.Enable, cfg.ClusterSettings.ClusterName, cfg.ClusterSettings.EncryptionKeys = true, "c", []string{key}
		return cfg
	}
	cfg := good()
	require.NoError(t, cfg.Validate())
	for want, change := range map[string]func(*server.Config){
		`ServiceSettings.ListenAddress "8065" is not an address`:                 func(c *server.Config) { c.ServiceSettings.ListenAddress = "8065" },
		`ServiceSettings.ListenAddress ":99999" has no port`:                     func(c *server.Config) { c.ServiceSettings.ListenAddress = ":99999" },
		`ServiceSettings.SiteURL "chat" is not a URL`:                            func(c *server.Config) { c.ServiceSettings.SiteURL = "chat" },
		`ServiceSettings.AllowedOrigins "https://a/b" is not an origin`:          func(c *server.Config) { c.ServiceSettings.AllowedOrigins = []string{"https://a/b"} },
		`ServiceSettings.TrustedProxies "proxy" is not`:                          func(c *server.Config) { c.ServiceSettings.TrustedProxies = []string{"proxy"} },
		`ServiceSettings.MaxRequests "0" is too small`:                           func(c *server.Config) { c.ServiceSettings.MaxRequests = 0 },
		`ClusterSettings.ClusterName "" is empty`:                                func(c *server.Config) { c.ClusterSettings.ClusterName = "" },
		`ClusterSettings.GossipPort "70000" is not a port`:                       func(c *server.Config) { c.ClusterSettings.GossipPort = 70000 },
		`ClusterSettings.NetworkInterface "eth99" is not`:                        func(c *server.Config) { c.ClusterSettings.NetworkInterface = "eth99" },
		`ClusterSettings.EncryptionKeys[0] has 16 bytes and not 32: make one`:    func(c *server.Config) { c.ClusterSettings.EncryptionKeys = []string{"AAAAAAAAAAAAAAAAAAAAAA=="} },
		`ClusterSettings.EncryptionKeys[0] of 9 characters is not base64`:        func(c *server.Config) { c.ClusterSettings.EncryptionKeys = []string{"my secret"} },
		`ClusterSettings.EnableGossipEncryption false contradicts`:               func(c *server.Config) { c.ClusterSettings.EnableGossipEncryption = false },
		`SqlSettings.DriverName "oracle" is not known`:                           func(c *server.Config) { c.SqlSettings.DriverName = "oracle" },
		`SqlSettings.DataSource "" is empty`:                                     func(c *server.Config) { c.SqlSettings.DataSource = "" },
		`SqlSettings.QueryTimeout "-1" is negative`:                              func(c *server.Config) { c.SqlSettings.QueryTimeout = -1 },
		`FileSettings.DriverName "amazons3" is not here yet`:                     func(c *server.Config) { c.FileSettings.DriverName = "amazons3" },
		`FileSettings.DriverName "ftp" is not known`:                             func(c *server.Config) { c.FileSettings.DriverName = "ftp" },
		`FileSettings.Directory "" is empty`:                                     func(c *server.Config) { c.FileSettings.Directory = "" },
		`LogSettings.ConsoleLevel "LOUD" is not a level`:                         func(c *server.Config) { c.LogSettings.ConsoleLevel = "LOUD" },
		`DataRetentionSettings.DeletionJobStartTime "late" is not a time of day`: func(c *server.Config) { c.DataRetentionSettings.DeletionJobStartTime = "late" },
		`DataRetentionSettings.MessageRetentionDays "0" is too small`: func(c *server.Config) {
			c.DataRetentionSettings.EnableMessageDeletion, c.DataRetentionSettings.MessageRetentionDays = true, 0
		},
	} {
		cfg := good()
		change(&cfg)
		require.ErrorContains(t, cfg.Validate(), want)
		require.NotContains(t, cfg.Validate().Error(), "secret")
	}
}

func TestRedact(t *testing.T) {
	for source, want := range map[string]string{
		"postgres://chat:secret@db/chat?sslmode=disable":    "postgres://chat:xxxxx@db/chat?sslmode=disable",
		"chat:secret@tcp(db:3306)/chat":                     "chat:xxxxx@tcp(db:3306)/chat",
		"chat:sec@ret@tcp(db:3306)/chat":                    "chat:xxxxx@tcp(db:3306)/chat",
		"host=db user=chat password=secret sslmode=disable": "host=db user=chat password=xxxxx sslmode=disable",
		"host=db password='my secret' user=chat":            "host=db password=xxxxx …",
		"host=db password = secret":                         "host=db password=xxxxx …",
		"file:/var/chat.db":                                 "file:/var/chat.db",
		"file:chat.db?_pragma=key('secret')":                "file:chat.db?xxxxx",
		"postgres://db/chat?user=chat&password=secret":      "postgres://db/chat?password=xxxxx&user=chat",
	} {
		require.Equal(t, want, server.Redact(source), source)
	}
}
